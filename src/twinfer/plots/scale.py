"""From values to places along an axis, and the values that are written beside it."""

import math
from dataclasses import dataclass

MANY = 7
"""Ticks of a logarithmic axis; where there would be more, there are fewer in each power of ten."""
FACTORS = (range(1, 10), (1, 2, 5), (1,))


@dataclass(frozen=True, slots=True)
class Scale:
    """From ``start`` to ``end`` on the page; logarithmic where ``log``.

    Attributes:
        time: of seconds that people count in minutes.
    """

    low: float
    high: float
    start: float
    end: float
    log: bool = False
    time: bool = False

    def place(self, value: float) -> float:
        """Where a value stands; one beyond an end stands there."""
        low, high, at = self.low, self.high, max(self.low, min(self.high, value))
        if self.log:
            low, high, at = math.log10(low), math.log10(high), math.log10(at)
        return self.start + (self.end - self.start) * ((at - low) / (high - low) if high > low else 0.0)

    def ticks(self) -> list[float]:
        """A handful of round values, all within the scale."""
        return self._powers() if self.log else self._even()

    def _powers(self) -> list[float]:
        powers = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
        within: list[float] = []
        for factors in FACTORS:
            every = (factor * 10.0**power for power in powers for factor in factors)
            within = [tick for tick in every if self.low <= tick <= self.high]
            if len(within) <= MANY:
                break
        return within

    def _even(self) -> list[float]:
        raw = (self.high - self.low) / 5 or 1.0
        unit: float = 60 if self.time and raw > 20 else 1
        unit *= 10 ** math.floor(math.log10(raw / unit))
        step = next(unit * factor for factor in (1, 2, 5, 10) if unit * factor >= raw * 0.999)
        return [step * number for number in range(math.ceil(self.low / step), int(self.high / step * 1.0001) + 1)]
