"""Measured and simulated percentiles next to each other, and what is allowed between them."""

import statistics
from collections.abc import Iterable, Sequence

import msgspec

from bench.simulator_check.replay import Served
from twinfer.simulator.distribution import percentile
from twinfer.simulator.recorder import Journey


class Row(msgspec.Struct, frozen=True):
    """One percentile of one time.

    Args:
        what: which.
        measured: medians over repetitions, in seconds.
        simulated: the same.
        spread: largest measured repetition over the smallest, less one.
        bar: the largest error that is allowed.
    """

    what: str
    measured: float
    simulated: float
    spread: float
    bar: float

    @property
    def error(self) -> float:
        """Simulated over measured, less one."""
        return self.simulated / self.measured - 1.0

    @property
    def kept(self) -> bool:
        """Whether it is within the bar."""
        return abs(self.error) <= self.bar


class Bars(msgspec.Struct, frozen=True):
    """Errors allowed at the median and at the 99th percentile."""

    p50: float
    p99: float


def rows(repetitions: Sequence[tuple[Sequence[Served], Sequence[Journey]]], bars: Bars) -> list[Row]:
    """Both percentiles of both times, over repetitions of one workload."""
    found = []
    for what, of_served, of_journey in (
        ("TTFT", _first_tokens, _simulated_first_tokens),
        ("TPOT", _tokens, _simulated_tokens),
    ):
        for percent, bar in ((50, bars.p50), (99, bars.p99)):
            measured = [percentile(sorted(of_served(served)), percent) for served, _ in repetitions]
            simulated = [percentile(sorted(of_journey(journeys)), percent) for _, journeys in repetitions]
            spread = max(measured) / min(measured) - 1.0
            medians = statistics.median(measured), statistics.median(simulated)
            found.append(Row(f"{what} p{percent}", *medians, spread, bar))
    return found


def _first_tokens(served: Iterable[Served]) -> list[float]:
    return [one.ttft_s for one in served]


def _tokens(served: Iterable[Served]) -> list[float]:
    return [one.tpot_s for one in served if one.tokens > 1]


def _simulated_first_tokens(journeys: Iterable[Journey]) -> list[float]:
    return [one.ttft_s for one in journeys if one.ttft_s is not None]


def _simulated_tokens(journeys: Iterable[Journey]) -> list[float]:
    return [one.tpot_s for one in journeys if one.tpot_s is not None]
