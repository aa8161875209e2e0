"""From values to places along an axis."""

import math
from dataclasses import dataclass

from twinfer.plots.ticks import even_ticks, log_ticks


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
        if self.log:
            return log_ticks(self.low, self.high)
        return even_ticks(self.low, self.high, 60 if self.time and self.high - self.low > 100 else 1)
