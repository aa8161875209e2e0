"""What differs between two runs of the same work, beyond noise.

Both runs asked the same questions at the same moments, so each request of one has its twin in the other: only twins
are compared, and blocks of neighbouring twins are drawn again for the interval of each change (``statistics.py``).
Intervals are so wide that all of them together hold with 95 % confidence (Bonferroni). A change counts if its whole
interval lies beyond a margin: machines are never alike to the percent.
"""

from collections.abc import Callable, Sequence

import msgspec
import numpy as np

from twinfer.core.errors import ConfigError
from twinfer.loadtest.record import Record
from twinfer.loadtest.result import Result, Trial
from twinfer.loadtest.statistics import CONFIDENCE, Estimate, change_at, paired, percentile, typical_change
from twinfer.loadtest.summary import gaps_s, measured

MIN_TWINS = 20
MIN_BEYOND = 10
"""Fewer values above a percentile say too little about it."""
MARGIN = 0.03


class Change(msgspec.Struct, frozen=True):
    """One number in both runs.

    Args:
        before, after: in seconds, of all requests.
        change: relative, with its interval: of a percentile, or the median of each request's own.
        differs: beyond noise.
    """

    name: str
    before: float
    after: float
    change: Estimate
    differs: bool


class Comparison(msgspec.Struct, frozen=True):
    """Two runs of the same work.

    Args:
        twins: requests without an error in both.
        margin: changes within it do not count.
    """

    twins: int
    margin: float
    changes: list[Change]

    @property
    def verdict(self) -> str:
        """In one line."""
        slower = [one.name for one in self.changes if one.differs and one.change.value > 0]
        faster = [one.name for one in self.changes if one.differs and one.change.value < 0]
        said = [f"slower in {', '.join(slower)}"] * bool(slower) + [f"faster in {', '.join(faster)}"] * bool(faster)
        return f"the second run is {' and '.join(said)}" if said else "no difference beyond noise"


_QUANTITIES: tuple[tuple[str, Callable[[Record], float | None]], ...] = (
    ("TTFT", lambda one: one.ttft_s),
    ("TPOT", lambda one: one.tpot_s),
    ("longest gap", lambda one: max(gaps_s(one), default=None)),
    ("end to end", lambda one: one.e2e_s),
)
TAIL = 90
_CHANGES = (("median request", typical_change, 50.0), (f"p{TAIL}", change_at(TAIL), float(TAIL)))


def compare(first: Result, second: Result, margin: float = MARGIN) -> Comparison:
    """What changed from the first to the second.

    Raises:
        ConfigError: they were not the same work, one of them is invalid, or they have too few requests in common.
    """
    refuse_other_work(first, second)
    for name, one in (("first", first), ("second", second)):
        if one.main.invalid:
            raise ConfigError(f"the {name} run is invalid and cannot be compared: {one.main.invalid}")
    return compare_trials(first.main, second.main, margin, first.seed)


def compare_trials(first: Trial, second: Trial, margin: float, seed: int) -> Comparison:
    """The same for two loads that are known to be the same work."""
    twins = _twins(first.records, second.records)
    if len(twins) < MIN_TWINS:
        raise ConfigError(f"the runs have {len(twins)} answered requests in common, {MIN_TWINS} are needed; run longer")
    confidence = 1 - (1 - CONFIDENCE) / (len(_QUANTITIES) * len(_CHANGES))
    changes = []
    for name, measure in _QUANTITIES:
        values = np.array([(measure(one), measure(other)) for one, other in twins], dtype=np.float64)
        before, after = values[~np.isnan(values).any(axis=1)].T
        if len(before) < MIN_TWINS:
            continue
        for kind, change, percent in _CHANGES:
            if len(before) * (100 - percent) / 100 < MIN_BEYOND:
                continue
            found = paired(before, after, change, confidence, seed)
            beyond = found.low > margin or found.high < -margin
            first_s, second_s = (percentile(sorted(side.tolist()), percent) for side in (before, after))
            changes.append(Change(f"{name}, {kind}", first_s, second_s, found, beyond))
    return Comparison(len(twins), margin, changes)


def refuse_other_work(first: Result, second: Result) -> None:
    """Refuse two runs whose times say nothing about each other.

    Raises:
        ConfigError: names everything that was not the same.
    """
    one, other = _work(first), _work(second)
    found = [f"{name} ({one[name]!r} and {other[name]!r})" for name in one if one[name] != other[name]]
    if found:
        raise ConfigError(f"these runs were not the same work: {', '.join(found)}; repeat one of them like the other")


def _work(result: Result) -> dict[str, object]:
    """All that decides what is asked and when; not whom."""
    target = result.target
    return {
        "api": target.api,
        "ignore_eos": target.ignore_eos,
        "extra": target.extra,
        "words_per_token": target.words_per_token,
        "overhead_tokens": target.overhead_tokens,
        **{f"work.{name}": value for name, value in msgspec.structs.asdict(result.work).items() if name != "file"},
        **{f"load.{name}": value for name, value in msgspec.structs.asdict(result.main.load).items()},
    }


def _twins(first: Sequence[Record], second: Sequence[Record]) -> list[tuple[Record, Record]]:
    """Requests that both runs answered, in the order in which the first was to send them."""
    others = {(one.session, one.turn): one for one in measured(second) if one.error is None}
    return [
        (one, twin)
        for one in measured(first)
        if one.error is None and (twin := others.get((one.session, one.turn))) is not None
    ]
