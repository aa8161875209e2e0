"""Systems, workloads and results made up for what is computed from them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import msgspec
from bench.published.cells import Cell, Manner, options, trace_path
from bench.published.launch import Program
from bench.published.systems import Site, System
from bench.published.workloads import Fixed, Workload, write_trace

from tests.loadtest import made
from twinfer.loadtest.arrivals import LoadSpec
from twinfer.loadtest.lag import Lag
from twinfer.loadtest.result import Result, Trial, save
from twinfer.loadtest.slo import Objectives
from twinfer.loadtest.summary import summarise

Role = Literal["disaggregated", "aggregated", "routed", "specialised", "peer"]
GOALS = Objectives(ttft_s=1.0, tpot_s=0.1)
REQUESTS = 60
SECONDS = 6.0


def nothing(site: Site) -> list[Program]:
    """No program."""
    return []


def system(name: str, role: Role = "peer", precision: str = "bf16") -> System:
    """One of Twinfer's unless it is a peer."""
    return System(name, name.title(), "vllm" if role == "peer" else "twinfer", precision, role, 5.0, nothing)


def workload(name: str, rate: float = 10.0) -> Workload:
    """Short prompts, short answers."""
    return Workload(name, name, f"what {name} asks", Fixed(32, 8), rate, SECONDS, GOALS)


def trial(good: int, rate: float, slower: float = 1.0) -> Trial:
    """So many good of 60 requests that were offered in six seconds; the others failed."""
    records = made.records(REQUESTS, 1, slower)
    for one in records[good:]:
        made.failed(one)
    return Trial(LoadSpec(rate=rate, max_s=SECONDS), summarise(records, GOALS, None, 0), Lag(), records)


def measured(cell: Cell, folder: Path, trials: Sequence[Trial], best_rate: float | None = None) -> Result:
    """A cell's file, made by the command that measures it at fixed rates, or found by a search."""
    manner = Manner(search=len(trials) > 1)
    write_trace(cell.workload.lengths.rows(), trace_path(cell.workload, folder))
    result = msgspec.structs.replace(
        made.result(trials),
        command=["twinfer", "bench", "run", "http://127.0.0.1:1234", *options(cell, folder, manner)],
        objectives=GOALS,
        searched=manner.search,
        best_rate=best_rate,
    )
    save(result, cell.path(folder))
    return result
