"""What is left to do, in order, and how long it takes."""

from collections.abc import Iterable
from dataclasses import dataclass

from bench.published.cells import Cell, Manner
from bench.published.systems import System
from bench.published.workloads import Workload

CELL_S = 9.0
"""Beside the load: warming up, and the last answers."""
TRIALS = 8
"""Rates that a search tries, about."""


@dataclass(frozen=True, slots=True)
class Turn:
    """A system with the workloads that are left for it."""

    system: System
    workloads: tuple[Workload, ...]

    def seconds(self, manner: Manner) -> float:
        """What it takes, about."""
        return self.system.start_s + sum(cell_seconds(one, manner) for one in self.workloads)


def cell_seconds(workload: Workload, manner: Manner) -> float:
    """What measuring a workload on a started system takes, about."""
    return (TRIALS if manner.search else 1) * manner.seconds(workload) + CELL_S


def turns(left: Iterable[Cell]) -> list[Turn]:
    """Every system once, with all that is left to measure of it."""
    workloads: dict[System, list[Workload]] = {}
    for cell in left:
        workloads.setdefault(cell.system, []).append(cell.workload)
    return [Turn(system, tuple(asked)) for system, asked in workloads.items()]


def spoken(seconds: float) -> str:
    """A time to wait, in minutes and hours."""
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60:02} min" if minutes >= 60 else f"{minutes} min"
