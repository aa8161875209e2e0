"""Counts by label, which any thread may raise and any may read."""

import threading
from collections import Counter


class Tally:
    """How often each thing happened."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: Counter[str] = Counter()

    def count(self, label: str) -> None:
        """Once more."""
        with self._lock:
            self._counts[label] += 1

    def counts(self) -> Counter[str]:
        """As of now, apart from what comes."""
        with self._lock:
            return self._counts.copy()
