"""A link that is not here: its speed follows from the catalogue and from what the KV stands for."""

import time
from pathlib import Path

import pytest

from twinfer.core.config import LinkConfig, LinkEmulationConfig
from twinfer.core.errors import ConfigError
from twinfer.core.layout import KVLayout
from twinfer.devices.catalogue import Catalogue
from twinfer.devices.transfer import bytes_per_second
from twinfer.transport.gate import RunningPull
from twinfer.transport.throttle import Speed, Throttle, unlimited
from twinfer.worker.pace import emulated_speed, link_pace

REAL = KVLayout(2, 2, 8, 16, "fp32")
VIRTUAL = KVLayout(1, 1, 1, 16, "fp32", 2**17)


def emulating(device: str = "efa-trn3", lanes: int = 1, time_scale: float = 1.0) -> LinkConfig:
    """A link in place of ours."""
    return LinkConfig(emulation=LinkEmulationConfig(device, lanes, time_scale))


def test_virtual_kv_takes_the_time_of_what_it_stands_for(tmp_path: Path) -> None:
    """Blocks of 2 MiB reach nine tenths of 25 GB/s, and each of their 128 bytes here is 16,384 there."""
    assert Speed(0.9 * 25e9, 20e-6, 2**14) == emulated_speed(emulating(), VIRTUAL, tmp_path)


def test_real_kv_is_its_own_bytes(tmp_path: Path) -> None:
    """Small blocks reach less, several lanes more, and time is stretched on request."""
    found = emulated_speed(emulating(lanes=4, time_scale=10.0), REAL, tmp_path)
    rate = bytes_per_second(Catalogue().link("efa-trn3"), REAL.block_bytes, 4)
    assert (rate / 10, 200e-6, 1.0) == pytest.approx((found.bytes_per_s, found.latency_s, found.weight))
    assert rate < 4 * 0.2425 * 25e9


@pytest.mark.parametrize(
    ("link", "message"),
    [
        (emulating("cs3"), "cs3 is a device, no link"),
        (emulating("efa-trn4"), "did you mean efa-trn"),
        (emulating(lanes=0), "at least one lane"),
        (emulating(time_scale=0.0), "a scale above 0"),
        (LinkConfig(throttle_mb_per_s=1.0, emulation=LinkEmulationConfig("efa-trn3")), "set one of them"),
    ],
)
def test_what_is_no_link(link: LinkConfig, message: str, tmp_path: Path) -> None:
    """One sentence that says what to do."""
    with pytest.raises(ConfigError, match=message):
        link_pace(link, REAL, tmp_path)


def test_a_link_is_as_fast_as_it_can_unless_told_otherwise(tmp_path: Path) -> None:
    """Nothing is slowed down unasked."""
    assert unlimited is link_pace(LinkConfig(), REAL, tmp_path)
    assert isinstance(link_pace(LinkConfig(throttle_mb_per_s=1.0), REAL, tmp_path), Throttle)
    assert isinstance(link_pace(emulating(), REAL, tmp_path), Throttle)


def test_bytes_come_no_sooner_than_over_the_link() -> None:
    """One after the other: their times add up, and the latency counts once."""
    throttle = Throttle(Speed(1e6, 1e-3, 10.0))
    pull = RunningPull("the pull", time.monotonic() + 60)
    started = time.monotonic()
    for _ in range(10):
        throttle(100, pull)
    assert time.monotonic() - started >= 10e-3 + 1e-3
