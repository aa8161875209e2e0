"""Who is ahead: Twinfer's rows next to the best peer of the same precision."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import prod
from pathlib import Path

from bench.published.cells import Cell, Manner, failure, measured, options
from bench.published.outcome import Measure, Outcome, outcome, standard
from bench.published.systems import System
from bench.published.workloads import Workload
from twinfer.loadtest.result import Result
from twinfer.loadtest.statistics import Estimate

PEER_PRECISION = {"bf16 + int8": "bf16"}
"""Pools of two precisions are held against peers of the better one."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A system with what it did."""

    system: System
    outcome: Outcome


@dataclass(frozen=True, slots=True)
class Duel:
    """The best of Twinfer's rows and the best peer, of one workload and precision."""

    workload: Workload
    precision: str
    ours: Entry
    theirs: Entry
    measure: Measure = standard

    @property
    def goodputs(self) -> tuple[Estimate, Estimate]:
        """Ours and theirs."""
        return _known(self.measure(self.ours.outcome)), _known(self.measure(self.theirs.outcome))

    @property
    def ratio(self) -> float:
        """Goodput of ours over theirs; of nothing over nothing, 1."""
        ours, theirs = (one.value for one in self.goodputs)
        return ours / theirs if theirs > 0 else float("inf") if ours > 0 else 1.0

    @property
    def verdict(self) -> str:
        """Ahead, behind, or level where the intervals overlap."""
        ours, theirs = self.goodputs
        if ours.value == theirs.value or (ours.low <= theirs.high and theirs.low <= ours.high):
            return "level"
        return "ahead" if ours.value > theirs.value else "behind"


def best(entries: Sequence[Entry], measure: Measure = standard) -> Entry | None:
    """The one with the most goodput; among equals the one whose answers are read faster."""

    def rank(entry: Entry) -> tuple[float, float]:
        tpot = entry.outcome.tpot
        return (_known(measure(entry.outcome)).value, -tpot.p50.value if tpot is not None else float("-inf"))

    return max((one for one in entries if measure(one.outcome) is not None), key=rank, default=None)


def _known(found: Estimate | None) -> Estimate:
    assert found is not None
    return found


def overall(duels: Sequence[Duel]) -> float | None:
    """The geometric mean of ratios; ``None`` where one is not a number."""
    ratios = [one.ratio for one in duels]
    if not ratios or not all(0 < ratio < float("inf") for ratio in ratios):
        return None
    return prod(ratios) ** (1 / len(ratios))


class Standing:
    """All that was measured, as files say it.

    Args:
        cells, manner: of the campaign.
        folder: of the files.
    """

    def __init__(self, cells: Sequence[Cell], manner: Manner, folder: Path) -> None:
        self.cells = cells
        self.systems = list(dict.fromkeys(one.system for one in cells))
        self.workloads = list(dict.fromkeys(one.workload for one in cells))
        self.manner = manner
        self._folder = folder

    @cached_property
    def results(self) -> Mapping[Cell, Result]:
        """Of every cell that was measured, in this manner."""
        asked = {cell: options(cell, self._folder, self.manner) for cell in self.cells}
        return {cell: found for cell in self.cells if (found := measured(cell, self._folder, asked[cell])) is not None}

    @cached_property
    def outcomes(self) -> Mapping[Cell, Outcome]:
        """The same, summed up."""
        return {cell: outcome(result, cell.workload.interactive) for cell, result in self.results.items()}

    def failure(self, cell: Cell) -> str:
        """Why there is nothing of a cell."""
        reason = failure(self._folder, cell)
        return f"left out: {reason}" if reason else "not measured"

    def entries(self, workload: Workload) -> list[Entry]:
        """Systems that were measured, in order."""
        found = ((one, self.outcomes.get(Cell(one, workload))) for one in self.systems)
        return [Entry(system, done) for system, done in found if done is not None]

    def chosen(self, workload: Workload, precision: str, role: str, measure: Measure = standard) -> Entry | None:
        """The best row of a role: of the two ways of Twinfer to aggregate, say, the better one."""
        entries = self.entries(workload)
        return best([one for one in entries if (one.system.precision, one.system.role) == (precision, role)], measure)

    def duels(self, precision: str, measure: Measure = standard) -> list[Duel]:
        """Of every workload in which both sides were measured."""
        found = []
        for workload in self.workloads:
            entries = self.entries(workload)
            ours = [one for one in entries if one.system.maker == "twinfer" and one.system.precision == precision]
            against = PEER_PRECISION.get(precision, precision)
            theirs = self.chosen(workload, against, "peer", measure)
            if (best_of_ours := best(ours, measure)) is not None and theirs is not None:
                found.append(Duel(workload, precision, best_of_ours, theirs, measure))
        return found
