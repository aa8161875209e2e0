"""A slower link than the one that is there, for experiments."""

import threading
import time

from twinfer.transport.gate import RunningPull


def unlimited(num_bytes: int, pull: RunningPull) -> None:
    """The pace of a link that is as fast as it can."""


class Throttle:
    """A pace that all pulls of a sink share: bytes beyond the rate wait until the link would have carried them."""

    def __init__(self, bytes_per_s: float) -> None:
        if bytes_per_s <= 0:
            raise ValueError(f"a link must move, not carry {bytes_per_s} bytes/s")
        self._bytes_per_s = bytes_per_s
        self._lock = threading.Lock()
        self._free_at = 0.0

    def __call__(self, num_bytes: int, pull: RunningPull) -> None:
        """Wait until these bytes are through; raises when the pull is fenced or late meanwhile."""
        with self._lock:
            now = time.monotonic()
            self._free_at = max(now, self._free_at) + num_bytes / self._bytes_per_s
            wait_s = self._free_at - now
        pull.sleep(wait_s)
