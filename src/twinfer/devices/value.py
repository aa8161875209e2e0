"""A number that says how well it is known, and curves made of such numbers."""

import math
from collections.abc import Iterable, Sequence
from enum import StrEnum
from itertools import pairwise

import msgspec


class Quality(StrEnum):
    """Where a number comes from, best first: the catalogue never hides that a figure is a claim or a guess."""

    INDEPENDENT = "independent"
    """A benchmark by somebody who neither makes nor runs the device."""
    MEASURED = "measured"
    """Published by the party that ran it."""
    SPECIFICATION = "specification"
    """Copied from the vendor's documentation."""
    VENDOR = "vendor"
    """The vendor says so, without saying how it was found."""
    DERIVED = "derived"
    """Computed from other numbers; the source holds the arithmetic."""
    ESTIMATE = "estimate"
    """An analyst's or a model's figure, or a guess that is called one."""
    RECALLED = "recalled"
    """From memory of the literature; check it before it is quoted."""


_ORDER = tuple(Quality)


def worst(qualities: Iterable[Quality]) -> Quality:
    """The one that casts most doubt; of none, the best there is."""
    return max(qualities, key=_ORDER.index, default=_ORDER[0])


class Value(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One number of a profile.

    Attributes:
        value: what computations use, in the unit of the field that holds it.
        low: the smallest that is credible.
        high: the largest that is credible.
        quality: what the number rests on.
        source: who says so, and where; for a derived one, how.
    """

    value: float
    low: float
    high: float
    quality: Quality
    source: str

    def __post_init__(self) -> None:
        if not all(math.isfinite(number) and number >= 0 for number in (self.low, self.value, self.high)):
            raise ValueError("value, low and high have to be finite and not negative")
        if not self.low <= self.value <= self.high:
            raise ValueError(f"value {self.value:g} lies outside its own range from low {self.low:g} to {self.high:g}")
        if not self.source.strip():
            raise ValueError("source is empty; say who measured or claims it, and where")

    @property
    def spread(self) -> float:
        """Highest over lowest credible value: 1 where nothing is doubted, infinite where it may be nothing."""
        if self.high == self.low:
            return 1.0
        return self.high / self.low if self.low else math.inf


class Point(Value, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A value at one place of a curve."""

    at: float
    """The degree of tensor parallelism, or the bytes of a block."""


def check_curve(points: Sequence[Point], name: str) -> None:
    """Refuse a curve without points, or with points out of order.

    Raises:
        ValueError: which curve, and what is wrong with it.
    """
    places = [point.at for point in points]
    if not places or places[0] <= 0 or any(left >= right for left, right in pairwise(places)):
        raise ValueError(f"the points of {name} have to be given with rising, positive `at`")


def on_curve(points: Sequence[Point], at: float) -> float:
    """The curve's value there: straight lines between the points, both axes logarithmic.

    Outside, the line through the two nearest points goes on, but never rises past the last one: what has not been seen
    is not assumed to be better.
    """
    if len(points) == 1:
        return points[0].value
    if (seen := next((point.value for point in points if point.at == at), None)) is not None:
        return seen
    index = min(max(1, sum(point.at < at for point in points)), len(points) - 1)
    left, right = points[index - 1], points[index]
    if not (left.value and right.value):
        return left.value if at < right.at else right.value
    slope = math.log(right.value / left.value) / math.log(right.at / left.at)
    if at > points[-1].at:
        slope = min(slope, 0.0)
        return right.value * math.exp(slope * math.log(at / right.at))
    return left.value * math.exp(slope * math.log(at / left.at))
