"""Hold the times of chips to measured ones: time per output token of serving runs, against what the catalogue gives.

    python tools/validate_devices.py measured_serving_points.csv

The file has one row per run with the columns model_path, system, backend, precision, mode, isl, osl, concurrency,
tp_size, pp_size, attention_dp_size, moe_ep_size and silicon_tpot_ms: silicon_sample.csv of
github.com/ai-dynamo/aiconfigurator (Apache-2.0), with the concurrency as a column of its own. Runs with both phases on
the same GPUs, at most 64 requests at a time and without expert or data parallelism are compared.

A request's time per token is a step of all that run, at its mean context, and its share of the others' prompts, one of
which is computed for every ``osl`` tokens.
"""

import csv
import statistics
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from twinfer.devices.catalogue import Catalogue
from twinfer.devices.fit import fit
from twinfer.devices.model_config import load_shape
from twinfer.devices.placement import Placement, Work
from twinfer.devices.shape import Precision
from twinfer.devices.step_time import step_seconds

DEVICES = {"h100_sxm": "h100", "h200_sxm": "h200", "b200_sxm": "b200"}
SHAPES = ("llama-3.1-8b", "llama-3.1-70b", "qwen3-32b", "gpt-oss-120b")
PRECISIONS: dict[str, Precision] = {"": "bf16", "fp8": "fp8", "fp4": "nvfp4"}
MAX_CONCURRENCY = 64
Group = tuple[str, str, str, str]
"""Device, shape, precision and engine."""


def errors(rows: Iterable[Mapping[str, str]]) -> Iterator[tuple[Group, float]]:
    """Computed over measured time per token, less one, of each row that can be compared."""
    catalogue = Catalogue()
    for row in rows:
        name = next((shape for shape in SHAPES if shape in row["model_path"].lower()), None)
        if name is None or not _comparable(row):
            continue
        shape, device = load_shape(name), catalogue.device(DEVICES[row["system"]])[0]
        precision = "mxfp4" if shape.native == "mxfp4" else PRECISIONS[row["precision"]]
        degree, running, prompt, answer = (int(row[key]) for key in ("tp_size", "concurrency", "isl", "osl"))
        placement = Placement(degree, degree, precision)
        if not fit(device, shape, placement, [prompt + answer] * running).fits:
            continue
        step = step_seconds(device, shape, placement, [Work(1, prompt + answer // 2)] * running)
        stalls = (running - 1) * step_seconds(device, shape, placement, [Work(prompt, 0)]) / answer
        group = (device.name, name, precision, row["backend"])
        yield group, (step + stalls) / (float(row["silicon_tpot_ms"]) / 1e3) - 1


def _comparable(row: Mapping[str, str]) -> bool:
    """Both phases on the same GPUs of one host, each layer cut over all of them."""
    if row["mode"] != "agg" or row["system"] not in DEVICES or not (row["concurrency"] and row["tp_size"]):
        return False
    alone = all(row[key] in ("", "0", "1") for key in ("pp_size", "attention_dp_size", "moe_ep_size"))
    return alone and int(row["concurrency"]) <= MAX_CONCURRENCY and int(row["tp_size"]) <= 8


def report(found: Mapping[Group, list[float]]) -> Iterator[str]:
    """A line per group, and one for each device and for all: rows, the median error, and the median of its size."""
    together: dict[str, list[float]] = defaultdict(list)
    yield f"{'device':8} {'shape':14} {'weights':7} {'engine':7} {'rows':>5} {'median':>7} {'of size':>8}"
    for (device, shape, precision, backend), values in sorted(found.items()):
        together[device] += values
        yield f"{device:8} {shape:14} {precision:7} {backend:7} {_figures(values)}"
    for device, values in together.items():
        yield f"{device:8} {'':30} {_figures(values)}"
    yield f"{'all':8} {'':30} {_figures([value for values in together.values() for value in values])}"


def _figures(values: list[float]) -> str:
    size = statistics.median(abs(value) for value in values)
    return f"{len(values):5} {statistics.median(values):+7.0%} {size:8.0%}"


def main(arguments: list[str]) -> int:
    """Print the report on the file that is named."""
    if len(arguments) != 1:
        print(__doc__)
        return 2
    found: dict[Group, list[float]] = defaultdict(list)
    with Path(arguments[0]).open(encoding="utf-8", newline="") as file:
        for group, error in errors(csv.DictReader(file)):
            found[group].append(error)
    print("\n".join(report(found)))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
