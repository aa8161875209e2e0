"""Published figures of single devices and links, next to what the catalogue gives: no fit is needed to compare them."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from twinfer.devices.catalogue import Catalogue
from twinfer.devices.model_config import load_shape
from twinfer.devices.pipeline import latency_seconds
from twinfer.devices.placement import Placement, Work
from twinfer.devices.profile import PipelineProfile
from twinfer.devices.step_time import step_seconds
from twinfer.devices.transfer import bytes_per_second, transfer_seconds, wire_bytes


@dataclass(frozen=True, slots=True)
class Anchor:
    """One published figure.

    Attributes:
        what: the case.
        measured: in ``unit``.
        computed: in the same unit.
        note: what else has to be known.
    """

    what: str
    measured: float
    computed: float
    unit: str
    note: str = ""

    @property
    def error(self) -> float:
        """Computed over measured, less one."""
        return self.computed / self.measured - 1.0


TRAINIUM2_PROMPTS = {
    "qwen3-8b": ((2048, 0.160), (8192, 0.606), (16384, 1.387), (32768, 3.50)),
    "qwen3-32b": ((2048, 0.476), (8192, 2.35), (16384, 5.98), (32768, 17.1)),
}
TRAINIUM2_TOKENS = {"qwen3-8b": 19.4, "qwen3-32b": 49.6}
WaferSpeed = tuple[str, int, float, str]
WAFER_SPEEDS: tuple[WaferSpeed, ...] = (
    ("Llama-3.1-405B", 126, 969.0, "Artificial Analysis and Cerebras, November 2024"),
    ("Llama-4 Maverick", 48, 2522.0, "Artificial Analysis, May 2025"),
    ("Qwen3-235B-A22B", 94, 1400.0, "vendor, recalled"),
    ("Qwen3-Coder-480B", 62, 2000.0, "vendor, recalled"),
    ("GLM-4.7", 92, 1201.0, "Artificial Analysis, an analyst's anchor; layers recalled"),
    ("gpt-oss-120b", 36, 3000.0, "vendor"),
)
"""Model, layers, published tokens per second, and who says so: what the time per layer was read from."""
SLOWER_WAFER_SPEEDS: tuple[WaferSpeed, ...] = (
    ("gpt-oss-120b", 36, 2059.0, "an analyst's anchor"),
    ("gpt-oss-120b", 36, 1706.0, "Artificial Analysis, May 2026"),
    ("Kimi K2.6", 61, 981.0, "vendor"),
    ("Llama-3.1-8B", 32, 1800.0, "Artificial Analysis, launch of August 2024"),
    ("Llama-3.1-70B", 80, 450.0, "Artificial Analysis, launch of August 2024"),
    ("Llama-3.1-70B", 80, 2100.0, "vendor, recalled: with speculative decoding"),
)
EFA_BLOCKS = ((64, 97), (128, 191), (256, 325), (512, 358), (1024, 353), (2048, 367))
EFA_INSTANCES = (("efa-p5", 389), ("efa-p5en", 365), ("efa-p6-b200", 302), ("efa-p6-b300", 780))
ENGINES = (
    ("vLLM, H800, 8 NICs, Qwen3-8B", "rdma-8x200-vllm", "qwen3-8b", 1, ((512, 0.92), (4096, 4.75), (32768, 31.7))),
    (
        "SGLang, H20, 4 x 400G, Qwen3-235B over 8",
        "rdma-4x400-sglang",
        "qwen3-235b-a22b",
        8,
        ((128, 2.07), (2048, 6.43), (8192, 20.3), (32768, 76.8)),
    ),
)


def trainium2(catalogue: Catalogue) -> list[Anchor]:
    """Prompts and single tokens on one chip, Kiln's measurements of vllm-neuron 0.24."""
    chip, _ = catalogue.device("trn2")

    def seconds(model: str, work: Work) -> float:
        return step_seconds(chip, load_shape(model), Placement(), [work])

    prompts = [
        Anchor(f"{model}, prompt of {tokens:,}", measured * 1e3, 1e3 * seconds(model, Work(tokens, 0)), "ms")
        for model, rows in TRAINIUM2_PROMPTS.items()
        for tokens, measured in rows
    ]
    return prompts + [
        Anchor(f"{model}, one token", measured, 1e3 * seconds(model, Work(1, 1024)), "ms", "one of two fitted to")
        for model, measured in TRAINIUM2_TOKENS.items()
    ]


def wafers(catalogue: Catalogue, speeds: Sequence[WaferSpeed]) -> list[Anchor]:
    """Tokens per second of one stream from the number of layers alone."""
    cs3, _ = catalogue.device("cs3")
    assert isinstance(cs3, PipelineProfile)
    return [
        Anchor(f"{model}, {layers} layers", published, 1.0 / latency_seconds(cs3, layers, 1), "tokens/s", source)
        for model, layers, published, source in speeds
    ]


def speed_from_the_others(speeds: Sequence[WaferSpeed], index: int) -> float:
    """Tokens per second of one of them by the median time per layer of all others."""
    others = [1.0 / (speed * layers) for place, (_, layers, speed, _) in enumerate(speeds) if place != index]
    return 1.0 / (statistics.median(others) * speeds[index][1])


def transfers(catalogue: Catalogue) -> list[Anchor]:
    """Mooncake's tables: EFA by block and by instance, and KV of two engines."""
    p5en = catalogue.link("efa-p5en")
    found = [
        Anchor(f"EFA of p5en, {kib} KiB blocks", speed, bytes_per_second(p5en, kib * 1024) / 1e9, "GB/s", "the curve")
        for kib, speed in EFA_BLOCKS
    ]
    found += [
        Anchor(f"{link}, large writes", speed, bytes_per_second(catalogue.link(link), 2**21) / 1e9, "GB/s", "the curve")
        for link, speed in EFA_INSTANCES
    ]
    for name, link, model, degree, rows in ENGINES:
        sizes = [wire_bytes(load_shape(model), tokens, degree) for tokens, _ in rows]
        for (tokens, measured), size in zip(rows, sizes, strict=True):
            computed = 1e3 * transfer_seconds(catalogue.link(link), size)
            others = [(s, t) for s, (n, t) in zip(sizes, rows, strict=True) if n != tokens]
            note = f"without this row in the fit {_line(others, size) / measured - 1:+.0%}"
            found.append(Anchor(f"{name}, {tokens:,} tokens", measured, computed, "ms", note))
    return found


def _line(rows: Sequence[tuple[float, float]], size: float) -> float:
    """Time of a size by latency and bandwidth that give the other rows with the least relative squares."""
    table = np.array([(1.0 / time, held / time) for held, time in rows])
    (latency, per_byte), *_ = np.linalg.lstsq(table, np.ones(len(rows)), rcond=None)
    return float(latency + per_byte * size)
