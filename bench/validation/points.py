"""Serving runs that others measured: which of them can be compared, and why the others cannot.

``measured_serving_points.csv`` beside this file holds the rows of silicon_sample.csv of
github.com/ai-dynamo/aiconfigurator (commit 095f58a5, Apache-2.0) whose phases ran on the same GPUs, the concurrency in
a column of its own: most are from InferenceX' public dump of 2026-04-27, those without a date are NVIDIA's.
"""

import csv
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from twinfer.devices.catalogue import Catalogue
from twinfer.devices.fit import fit
from twinfer.devices.model_config import load_shape
from twinfer.devices.placement import Placement
from twinfer.devices.profile import RooflineProfile
from twinfer.devices.shape import ModelShape, Precision

POINTS = Path(__file__).with_name("measured_serving_points.csv")
SYSTEMS = {"h100_sxm": "h100", "h200_sxm": "h200", "b200_sxm": "b200", "b300_sxm": "b300", "gb200": "gb200"}
SHAPES = {
    "deepseek-v3": "deepseek-v3",
    "llama-3.1-8b": "llama-3.1-8b",
    "llama-3.1-70b": "llama-3.1-70b",
    "qwen3-32b": "qwen3-32b",
    "qwen3-235b-a22b": "qwen3-235b-a22b",
    "gpt-oss-120b": "gpt-oss-120b",
}
PRECISIONS: dict[str, Precision] = {"": "bf16", "bf16": "bf16", "fp8": "fp8", "fp4": "nvfp4"}
MAX_DEGREE = 8
"""GPUs of one host; what goes beyond it in the file contradicts its other columns."""
WAITING = "the first token took longer than all others: requests waited for a place, and how many ran is not known"


@dataclass(frozen=True, slots=True)
class Point:
    """One run: so many requests at a time, each as soon as another one is done.

    Attributes:
        dated: measured by InferenceX, whose lengths vary; NVIDIA's runs have the same length for all requests.
        first_token_s: mean time to the first token.
        token_s: mean time per further token.
    """

    shape: ModelShape
    device: RooflineProfile
    engine: str
    dated: bool
    placement: Placement
    prompt: int
    answer: int
    running: int
    first_token_s: float
    token_s: float

    @property
    def group(self) -> tuple[str, str]:
        """Model and system: what is left out of a fit as a whole."""
        return self.shape.name, self.device.name

    @property
    def below_saturation(self) -> bool:
        """Whether the first token took at most half as long as the others: not mostly waiting."""
        return self.first_token_s <= self.answer * self.token_s / 2


@dataclass(frozen=True, slots=True)
class Reading:
    """What a file holds: points, and how many rows each reason left out."""

    points: tuple[Point, ...]
    left_out: Mapping[str, int]


def read(path: Path, catalogue: Catalogue) -> Reading:
    """All rows of a file."""
    with path.open(encoding="utf-8", newline="") as file:
        return of_rows(csv.DictReader(file), catalogue)


def of_rows(rows: Iterable[Mapping[str, str]], catalogue: Catalogue) -> Reading:
    """Points of the rows that can be compared."""
    points, reasons = [], Counter[str]()
    for row in rows:
        if why := _unusable(row):
            reasons[why] += 1
            continue
        point = _point(row, catalogue)
        contexts = [point.prompt + point.answer] * point.running
        if not fit(point.device, point.shape, point.placement, contexts).fits:
            reasons["weights and KV of all requests do not fit: some had to wait"] += 1
        elif point.first_token_s > point.answer * point.token_s:
            reasons[WAITING] += 1
        else:
            points.append(point)
    return Reading(tuple(points), reasons)


def _unusable(row: Mapping[str, str]) -> str | None:
    """Why a row cannot be compared, by its columns alone."""
    model = row["model_path"].lower()
    if "deepseek-r1" in model:
        return (
            "DeepSeek-R1: with and without multi-token prediction under one name, the same configuration differs "
            "up to 2.3 times (rows named V3 are without)"
        )
    if _shape_name(model) is None:
        return "models with linear or indexed attention, whose KV is not known here (Qwen3.5-397B, GLM-5)"
    if not row["concurrency"]:
        return "no concurrency given"
    degree = int(row["tp_size"])
    if degree > MAX_DEGREE:
        return "a degree of 16 to 72 on hosts of eight: columns contradict each other"
    if row["attention_dp_size"] not in ("", "1") or row["batch_size"] not in ("", row["concurrency"]):
        return "attention over copies of the data, or batches smaller than the concurrency"
    if row["moe_ep_size"] not in ("", "0", "1", row["tp_size"]):
        return "experts cut in two ways"
    return None


def _shape_name(model: str) -> str | None:
    return next((shape for part, shape in SHAPES.items() if part in model), None)


def _point(row: Mapping[str, str], catalogue: Catalogue) -> Point:
    device, _ = catalogue.device(SYSTEMS[row["system"]])
    assert isinstance(device, RooflineProfile)
    shape = load_shape(_shape_name(row["model_path"].lower()) or "")
    precision = shape.native if shape.native == "mxfp4" else PRECISIONS[row["precision"]]
    degree = int(row["tp_size"])
    narrow_kv = row["backend"] == "trtllm" and precision in ("fp8", "nvfp4")
    return Point(
        shape=shape,
        device=device,
        engine=row["backend"],
        dated=bool(row["measured"]),
        placement=Placement(degree, degree, precision, 1.0 if narrow_kv else 2.0),
        prompt=int(row["isl"]),
        answer=int(row["osl"]),
        running=int(row["concurrency"]),
        first_token_s=float(row["silicon_ttft_ms"]) / 1e3,
        token_s=float(row["silicon_tpot_ms"]) / 1e3,
    )
