"""Repetitions of one workload between replays of another, which tell whether the machine stayed the same.

    probe, tried, probe, tried, probe ...

Each repetition stands between two probes. When these differ by more than is allowed, the machine was not the same
before and after, the repetition says nothing of the simulator, and it is measured again, up to a number of times. What
is fitted is fitted on the probes around those that count, so that neither the fit nor what it is tried on comes first.
"""

import statistics
from collections.abc import Callable, Sequence

import msgspec

from bench.simulator_check.replay import Served


class Round(msgspec.Struct, frozen=True):
    """One repetition, and the probes before and after it."""

    before: list[Served]
    tried: list[Served]
    after: list[Served]

    @property
    def drift(self) -> float:
        """By how much the medians of the probes differ, the worse of both times."""
        return max(abs(_median(self.after, what) / _median(self.before, what) - 1.0) for what in ("ttft_s", "tpot_s"))


class Rounds(msgspec.Struct, frozen=True):
    """What was measured.

    Args:
        where: the machine, and how busy it was with other work.
        wanted: rounds that are needed.
        allowed: drift up to which a round counts.
        all: rounds, in order.
    """

    where: str
    wanted: int
    allowed: float
    all: list[Round]

    @property
    def steady(self) -> list[Round]:
        """Those that count."""
        return [one for one in self.all if one.drift <= self.allowed]

    @property
    def objection(self) -> str | None:
        """Why nothing may be said of the simulator, in words; ``None`` when something may."""
        if len(self.steady) >= self.wanted:
            return None
        drifts = ", ".join(f"{one.drift:.1%}" for one in self.all)
        return (
            f"INVALID: {len(self.steady)} of {len(self.all)} repetitions count and {self.wanted} are needed; between "
            f"the probes around each the machine changed by {drifts}, where {self.allowed:.0%} are allowed. "
            f"Run it again when nothing else runs."
        )

    def __str__(self) -> str:
        """How steady the machine was, as one sentence."""
        lost = len(self.all) - len(self.steady)
        worst = max((one.drift for one in self.steady), default=0.0)
        again = f"; {lost} repetitions with more than {self.allowed:.0%} were measured again" if lost else ""
        return f"Probes before and after a repetition differed by at most {worst:.1%}{again}."


def measure(
    probe: Callable[[], list[Served]], tried: Callable[[], list[Served]], wanted: int, most: int, allowed: float
) -> list[Round]:
    """Rounds until as many count as are wanted, and no more than ``most``."""
    rounds, before = list[Round](), probe()
    while len(rounds) < most and sum(one.drift <= allowed for one in rounds) < wanted:
        rounds.append(Round(before, tried(), after := probe()))
        before = after
    return rounds


def middle(probes: Sequence[Sequence[Served]]) -> list[Served]:
    """Of each request the medians of its times."""
    return [_middle(ones) for ones in zip(*probes, strict=True)]


def _middle(ones: Sequence[Served]) -> Served:
    at_s = statistics.median(one.at_s for one in ones)
    first_s = at_s + statistics.median(one.ttft_s for one in ones)
    last_s = first_s + statistics.median(one.last_s - one.first_s for one in ones)
    return Served(at_s, ones[0].prompt_tokens, ones[0].tokens, first_s, last_s)


def _median(probe: Sequence[Served], what: str) -> float:
    found: float = statistics.median(getattr(one, what) for one in probe if one.tokens > 1)
    return found
