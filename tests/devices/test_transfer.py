"""Transfer times against the tables that engines published."""

import pytest

from twinfer.devices.catalogue import Catalogue
from twinfer.devices.model_config import load_shape
from twinfer.devices.transfer import bytes_per_second, transfer_seconds, wire_bytes

CATALOGUE = Catalogue()


@pytest.mark.parametrize(
    ("kib", "gb_per_s"), [(64, 97), (128, 191), (256, 325), (512, 358), (1024, 353), (2048, 367), (8192, 367)]
)
def test_efa_by_block_size(kib: int, gb_per_s: float) -> None:
    """p5en writes, Mooncake's measurement; past the largest block no better."""
    assert gb_per_s == pytest.approx(bytes_per_second(CATALOGUE.link("efa-p5en"), kib * 1024) / 1e9, rel=0.01)


@pytest.mark.parametrize(
    ("link", "gb_per_s"), [("efa-p5", 389), ("efa-p5en", 365), ("efa-p6-b200", 302), ("efa-p6-b300", 780)]
)
def test_efa_by_instance(link: str, gb_per_s: float) -> None:
    """Large writes between GPUs, measured."""
    assert gb_per_s == pytest.approx(bytes_per_second(CATALOGUE.link(link), 2**21) / 1e9, rel=0.02)


@pytest.mark.parametrize(
    ("link", "model", "degree", "rows"),
    [
        ("rdma-8x200-vllm", "qwen3-8b", 1, ((512, 0.92), (4096, 4.75), (32768, 31.7))),
        ("rdma-4x400-sglang", "qwen3-235b-a22b", 8, ((128, 2.07), (2048, 6.43), (8192, 20.3), (32768, 76.8))),
    ],
)
def test_engines_with_mooncake(link: str, model: str, degree: int, rows: tuple[tuple[int, float], ...]) -> None:
    """Milliseconds for contexts of so many tokens, measured: each within 15 %."""
    for tokens, milliseconds in rows:
        moved = wire_bytes(load_shape(model), tokens, degree)
        assert pytest.approx(milliseconds, rel=0.15) == 1e3 * transfer_seconds(CATALOGUE.link(link), moved)


@pytest.mark.parametrize(
    ("link", "lanes", "milliseconds"),
    [
        ("ethernet-100g", 1, (98, 390, 1562)),
        ("efa-trn3", 1, (48, 191, 764)),
        ("efa-trn2", 1, (3, 12, 48)),
        ("cs3-inlet", 1, (8, 34, 135)),
        ("cs3-inlet", 2, (4, 17, 68)),
    ],
)
def test_handoff_of_llama_8b(link: str, lanes: int, milliseconds: tuple[float, float, float]) -> None:
    """KV of 8k, 32k and 128k tokens after the fact; several wafers take it in side by side."""
    shape = load_shape("llama-3.1-8b")
    for tokens, expected in zip((8192, 32768, 131072), milliseconds, strict=True):
        found = 1e3 * transfer_seconds(CATALOGUE.link(link), wire_bytes(shape, tokens), lanes=lanes)
        assert pytest.approx(expected, rel=0.15) == found


def test_heads_that_are_repeated_travel_twice() -> None:
    """Mooncake measures 12.62 GB for Qwen3-235B at 32k over eight devices."""
    assert 12.62 == pytest.approx(wire_bytes(load_shape("qwen3-235b-a22b"), 32768, 8) / 1e9, rel=0.01)


def test_nothing_takes_no_time() -> None:
    """Without bytes there is no transfer."""
    assert 0.0 == transfer_seconds(CATALOGUE.link("tcp"), 0)
