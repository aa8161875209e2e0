"""Time as an argument: the one place where the product meets the wall clock is the real ``Clock``.

Decisions take ``now`` in seconds as a number. Only the thin shells that call them hold a clock, and the simulator
hands them a virtual one.
"""

import time
from typing import Protocol


class Clock(Protocol):
    """A source of monotonic seconds."""

    def now(self) -> float:
        """Seconds since an arbitrary origin; never goes back."""
        ...


class MonotonicClock:
    """The machine's monotonic clock."""

    def now(self) -> float:
        """Seconds since an arbitrary origin; never goes back."""
        return time.monotonic()


class ManualClock:
    """A clock that tests and simulations move by hand."""

    def __init__(self, start: float = 0.0) -> None:
        self._now = start

    def now(self) -> float:
        """The time last set."""
        return self._now

    def advance(self, seconds: float) -> None:
        """Move forward; going back is an error."""
        if seconds < 0:
            raise ValueError(f"a clock cannot go back by {-seconds} s")
        self._now += seconds
