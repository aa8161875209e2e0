"""A log that outsiders cannot flood: some lines in each period, and then how many more there were."""

import threading
from collections.abc import Callable

from twinfer.core.clock import Clock, MonotonicClock


class SparseLog:
    """Passes on the first lines of each period; safe from any thread.

    Args:
        emit: takes a format and its arguments, such as ``logger.warning``.
        max_lines: in one period.
        period_s: its length.
        clock: tells when the next one begins.
    """

    def __init__(
        self, emit: Callable[..., None], max_lines: int = 20, period_s: float = 10.0, clock: Clock | None = None
    ) -> None:
        self._emit = emit
        self._max_lines = max_lines
        self._period_s = period_s
        self._clock = clock or MonotonicClock()
        self._lock = threading.Lock()
        self._period_ends = self._clock.now()
        self._num_lines = 0

    def __call__(self, message: str, *args: object) -> None:
        """Log, or only count."""
        with self._lock:
            now, left_out = self._clock.now(), 0
            if now >= self._period_ends:
                left_out = max(0, self._num_lines - self._max_lines)
                self._period_ends, self._num_lines = now + self._period_s, 0
            self._num_lines += 1
            silent = self._num_lines > self._max_lines
        if left_out:
            self._emit("%d more lines like the following were left out", left_out)
        if not silent:
            self._emit(message, *args)
