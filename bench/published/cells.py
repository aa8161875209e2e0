"""A cell of the benchmark: one system under one workload, measured by ``twinfer bench run`` and kept in a file.

A cell is done when its file was made by the same command, wherever the server was; one that could not be started
or measured has a file with the reason instead, and is tried again.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.published.systems import MODEL, System
from bench.published.workloads import Workload
from twinfer.core.errors import ConfigError
from twinfer.loadtest.bench import INTERRUPTED
from twinfer.loadtest.result import Result, load

URL_PLACE = 3
"""Of the server's address in ``twinfer bench run URL``."""
WARM_NONCE, NONCE = 1, 2
"""Texts of the warm-up are not those of the measurement, and those are the same for every system."""


@dataclass(frozen=True, slots=True)
class Manner:
    """How cells are measured.

    Attributes:
        search: for the highest rate, instead of one rate that is fixed.
        stretch: loads take so many times as long as the workload says.
        timeout_s: an answer that takes longer has failed.
        max_lag_ms: the client's own delay that is allowed at p99.
    """

    search: bool = False
    stretch: float = 1.0
    timeout_s: float = 40.0
    max_lag_ms: float = 50.0

    def seconds(self, workload: Workload) -> float:
        """For which requests are sent, at each rate."""
        return workload.seconds * self.stretch


@dataclass(frozen=True, slots=True)
class Cell:
    """One system under one workload."""

    system: System
    workload: Workload

    def path(self, folder: Path) -> Path:
        """Where its result is."""
        return folder / f"{self.system.name}.{self.workload.name}.json"


def trace_path(workload: Workload, folder: Path) -> Path:
    """Where the workload's requests are."""
    return folder / f"{workload.name}.csv"


def failure_path(folder: Path, system: System, workload: Workload | None = None) -> Path:
    """Where it says why a system could not be started, or not be measured under a workload."""
    return folder / f"{system.name}{f'.{workload.name}' if workload else ''}.failed"


def options(cell: Cell, folder: Path, manner: Manner) -> list[str]:
    """The measurement, as options of ``twinfer bench run URL``."""
    workload = cell.workload
    goals = workload.objectives
    load_options = ["--rate", f"{workload.rate:g}", "--duration", f"{manner.seconds(workload):g}"]
    slo = ["--slo-ttft", f"{goals.ttft_s:g}", "--slo-tpot", f"{goals.tpot_s:g}"]
    bounds = ["--max-errors", "1", "--max-lag", f"{manner.max_lag_ms:g}", "--nonce", str(NONCE)]
    kept = ["--name", cell.system.title, "--json", str(cell.path(folder))]
    found = ["--find-rate"] if manner.search else []
    return [*_asked(workload, folder, manner.timeout_s), *load_options, *slo, *bounds, *found, *kept]


def warm_up(cell: Cell, folder: Path) -> list[str]:
    """Two requests of the workload at once, whatever they take: compilers and connections are ready afterwards."""
    closed = ["--concurrency", "2", "--requests", "2", "--max-errors", "1", "--max-lag", "1000"]
    return [*_asked(cell.workload, folder, timeout_s=120.0), *closed, "--nonce", str(WARM_NONCE)]


def _asked(workload: Workload, folder: Path, timeout_s: float) -> list[str]:
    shared = ["--shared-prefix", str(workload.shared_tokens)] if workload.shared_tokens else []
    who = ["--api", "completions", "--model", MODEL, "--ignore-eos", "--timeout", f"{timeout_s:g}"]
    return [*who, "--trace", str(trace_path(workload, folder)), *shared]


def measured(cell: Cell, folder: Path, command: Sequence[str] | None = None) -> Result | None:
    """What was measured, if anything was; with a command only what that command measured, to its end."""
    try:
        result = load(cell.path(folder))
    except ConfigError:
        return None
    if command is None:
        return result
    same = result.command[URL_PLACE + 1 :] == list(command)
    return result if same and result.trials[-1].stopped != INTERRUPTED else None


def failure(folder: Path, cell: Cell) -> str | None:
    """Why the cell could not be measured, if it could not."""
    paths = (failure_path(folder, cell.system), failure_path(folder, cell.system, cell.workload))
    return next((path.read_text(encoding="utf-8").strip() for path in paths if path.exists()), None)
