"""What is left to do, in order, and how long it takes."""

from collections.abc import Iterable, Sequence
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


def turns(systems: Iterable[System], workloads: Sequence[Workload], done: Iterable[Cell]) -> list[Turn]:
    """Every system that has something left to measure, with that."""
    finished = set(done)
    left = [Turn(one, tuple(each for each in workloads if Cell(one, each) not in finished)) for one in systems]
    return [turn for turn in left if turn.workloads]


def spoken(seconds: float) -> str:
    """A time to wait, in minutes and hours."""
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60:02} min" if minutes >= 60 else f"{minutes} min"
