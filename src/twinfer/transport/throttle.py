"""A slower link than the one that is there: for experiments, and in place of one that is not here."""

import threading
import time
from dataclasses import dataclass

from twinfer.transport.gate import RunningPull

GAPLESS_S = 2e-3
"""Bytes that come so soon after others were through would have been on their way already."""


def unlimited(num_bytes: int, pull: RunningPull) -> None:
    """The pace of a link that is as fast as it can."""


@dataclass(frozen=True, slots=True)
class Speed:
    """What a link does.

    Attributes:
        bytes_per_s: once it flows.
        latency_s: until the first byte is there.
        weight: bytes that each byte stands for.
    """

    bytes_per_s: float
    latency_s: float = 0.0
    weight: float = 1.0

    def __post_init__(self) -> None:
        if self.bytes_per_s <= 0:
            raise ValueError(f"a link must move, not carry {self.bytes_per_s} bytes/s")


class Throttle:
    """A pace that all pulls of a sink share: bytes beyond the rate wait until the link would have carried them."""

    def __init__(self, speed: Speed) -> None:
        self._speed = speed
        self._lock = threading.Lock()
        self._free_at = 0.0

    def __call__(self, num_bytes: int, pull: RunningPull) -> None:
        """Wait until these bytes are through; raises when the pull is fenced or late meanwhile."""
        speed = self._speed
        with self._lock:
            now = time.monotonic()
            start = self._free_at if now - self._free_at <= GAPLESS_S else now
            self._free_at = start + num_bytes * speed.weight / speed.bytes_per_s
            wait_s = self._free_at + speed.latency_s - now
        if wait_s > 0:
            pull.sleep(wait_s)
        pull.check()
