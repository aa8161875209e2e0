"""Holds steps to absolute deadlines, finer than a machine sleeps.

A sleep of 333 us takes 420 to 440. So the pacer sleeps until shortly before the deadline and gives way from then on,
until it has passed. Steps that follow one another begin where the last one was to end: what deciding takes between them
is the engine's, not the device's, which would have been given its next step in time.
"""

import threading
import time

from twinfer.core.clock import Clock

GIVE_WAY_S = 150e-6
"""Before a deadline; a sleep ends about 110 us late."""
GAPLESS_S = 500e-6
"""Steps that begin within that of the last deadline follow it without a gap."""


class Pacer:
    """Deadlines of one engine's steps."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._last = float("-inf")
        self._pause = threading.Event()

    def begin(self, seconds: float) -> float:
        """A step that takes that long begins now; returns when it ends."""
        now = self._clock.now()
        start = self._last if 0 <= now - self._last <= GAPLESS_S else now
        self._last = start + seconds
        return self._last

    def wait_until(self, deadline: float) -> None:
        """Return when it has passed."""
        while (left := deadline - self._clock.now()) > GIVE_WAY_S:
            self._pause.wait(left - GIVE_WAY_S)
        while self._clock.now() < deadline:
            time.sleep(0)
