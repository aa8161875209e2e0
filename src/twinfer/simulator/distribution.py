"""Distributions of times: exact ones of a value per request, and counts in narrow bins where there are millions."""

import math
from collections import Counter
from collections.abc import Sequence

PERCENTS = (50, 90, 99)
WIDTH = math.log(1.005)
"""Of a bin, on the logarithm: half a percent."""
SMALLEST_S = 1e-9


def percentile(ordered: Sequence[float], percent: float) -> float:
    """The value that so many percent do not exceed, of values in order; of none, 0."""
    if not ordered:
        return 0.0
    return ordered[max(0, math.ceil(percent / 100 * len(ordered)) - 1)]


class Gaps:
    """Counts of durations, each known to half a percent."""

    def __init__(self) -> None:
        self._counts: Counter[int] = Counter()
        self.number = 0
        self._total_s = 0.0

    @property
    def mean(self) -> float:
        """Of all, exactly; of none, 0."""
        return self._total_s / self.number if self.number else 0.0

    def add(self, seconds: float, number: int = 1) -> None:
        """So many of that length."""
        self._counts[_bin(seconds)] += number
        self.number += number
        self._total_s += number * seconds

    def add_even(self, first_s: float, growth_s: float, steps: int, number: int) -> None:
        """``number`` each of ``steps`` lengths that grow evenly."""
        last_s = first_s + growth_s * (steps - 1)
        if _bin(first_s) == _bin(last_s):
            self.add(first_s + growth_s * (steps - 1) / 2, number * steps)
        else:
            for index in range(steps):
                self.add(first_s + growth_s * index, number)

    def percentile(self, percent: float) -> float:
        """The length that so many percent do not exceed, in seconds; of none, 0."""
        left = percent / 100 * self.number
        for index in sorted(self._counts):
            left -= self._counts[index]
            if left <= 0:
                return SMALLEST_S * math.exp((index - 0.5) * WIDTH) if index else 0.0
        return 0.0

    def histogram(self, per_decade: int) -> list[tuple[float, int]]:
        """Lower bounds of wider bins with their counts, in order."""
        wide: Counter[int] = Counter()
        for index, number in self._counts.items():
            seconds = SMALLEST_S * math.exp((index - 0.5) * WIDTH)
            wide[math.floor(math.log10(seconds) * per_decade)] += number
        return [(10 ** (index / per_decade), wide[index]) for index in sorted(wide)]


def _bin(seconds: float) -> int:
    return 0 if seconds <= SMALLEST_S else 1 + int(math.log(seconds / SMALLEST_S) / WIDTH)
