"""Holds steps to absolute deadlines, finer than a machine sleeps.

A sleep of 333 us takes 420, and 370 once the kernel is told not to gather wake-ups. So the pacer sleeps until shortly
before the deadline and gives way from then on, until it has passed. Steps that follow one another begin where the last
one was to end: what deciding takes between them is the engine's, not the device's, which would have been given its next
step in time. A machine that was late catches up.
"""

import ctypes
import sys
import threading
import time
from collections.abc import Sequence
from itertools import accumulate

from twinfer.core.clock import Clock

GIVE_WAY_S = 40e-6
"""Before a deadline; a sleep ends about 35 us late."""
MAX_BEHIND_S = 50e-3
"""What is later than that is not caught up with: it is no jitter, but a machine that is too slow, or was asleep."""
_PR_SET_TIMERSLACK = 29


class Pacer:
    """Deadlines of one engine's steps."""

    def __init__(self, clock: Clock, changed: threading.Event | None = None) -> None:
        self._clock = clock
        self._last = float("-inf")
        self._changed = changed or threading.Event()
        self._sharp: int | None = None

    def begin(self, seconds: Sequence[float], *, follows: bool) -> list[float]:
        """Steps that take that long begin now, one after the other; returns when each ends.

        Args:
            seconds: at least one step's.
            follows: the last one begun ended just now, and nothing was idle since.
        """
        now = self._clock.now()
        start = self._last if follows and 0 <= now - self._last <= MAX_BEHIND_S else now
        ends = list(accumulate(seconds, initial=start))[1:]
        self._last = ends[-1]
        return ends

    def wait(self, ends: Sequence[float]) -> int:
        """Return when the steps have ended, or when the one has during which something changed; how many did."""
        if len(ends) > 1 and self._changed_before(ends[-1] - GIVE_WAY_S):
            now = self._clock.now()
            ends = ends[: 1 + sum(end <= now for end in ends[:-1])]
        self._last = ends[-1]
        self._wait_until(self._last)
        return len(ends)

    def _changed_before(self, until: float) -> bool:
        self._sharpen()
        while (left := until - self._clock.now()) > 0:
            if self._changed.wait(left):
                return True
        return False

    def _wait_until(self, deadline: float) -> None:
        self._sharpen()
        while (left := deadline - self._clock.now()) > GIVE_WAY_S:
            time.sleep(left - GIVE_WAY_S)
        while self._clock.now() < deadline:
            time.sleep(0)

    def _sharpen(self) -> None:
        """Ask for wake-ups of this thread at once, where Linux would put them off by 50 us."""
        if self._sharp != threading.get_ident() and sys.platform == "linux":
            ctypes.CDLL(None).prctl(_PR_SET_TIMERSLACK, 1, 0, 0, 0)
        self._sharp = threading.get_ident()
