"""The thread that gives back what deadlines have passed for, whatever the rest of the worker is busy with."""

import logging
import threading
import time
from collections.abc import Callable

logger = logging.getLogger(__name__)
PERIOD_S = 0.25
STUCK_S = 5.0
"""A tick that takes that long means that something holds what the reclaimer needs."""


class Reclaimer:
    """Calls ``tick`` a few times a second. It allocates nothing, and waits for no peer and no step.

    Args:
        tick: gives back what is overdue; must be quick and safe from any thread.
    """

    def __init__(self, tick: Callable[[], None]) -> None:
        self._tick = tick
        self._stopping = threading.Event()
        self._last_tick = time.monotonic()
        self._thread = threading.Thread(target=self._run, name="reclaimer", daemon=True)

    @property
    def alive(self) -> bool:
        """False means that leases no longer end, or not in time: the worker is not healthy."""
        return self._thread.is_alive() and time.monotonic() - self._last_tick < STUCK_S

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """Return once the thread has ended."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        try:
            while not self._stopping.wait(PERIOD_S):
                self._tick()
                self._last_tick = time.monotonic()
        except Exception:  # the thread's outermost loop: health turns red, and the log says why
            logger.exception("the reclaimer failed; this worker can no longer end leases")
