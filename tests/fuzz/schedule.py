"""Virtual time: calls at moments, run in order. Nothing in a fuzzed world waits for anything else."""

import heapq
import itertools
import random
from collections import Counter
from collections.abc import Callable


class Schedule:
    """The clock, the dice and the calendar of one world.

    Attributes:
        random: the only source of chance, seeded.
        injected: how often each kind of fault was injected.
    """

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.injected: Counter[str] = Counter()
        self._now = 0.0
        self._calls: list[tuple[float, int, Callable[[], object]]] = []
        self._order = itertools.count()

    def now(self) -> float:
        """Virtual seconds; also makes this a ``Clock``."""
        return self._now

    def after(self, seconds: float, call: Callable[[], object]) -> None:
        """Run a call later; calls of one moment run in the order in which they were made."""
        heapq.heappush(self._calls, (self._now + seconds, next(self._order), call))

    def run_until(self, end: float) -> None:
        """Let time pass."""
        while self._calls and self._calls[0][0] <= end:
            self._now, _, call = heapq.heappop(self._calls)
            call()
        self._now = max(self._now, end)

    def chance(self, fault: str, probability: float) -> bool:
        """Whether a fault strikes now; counted when it does."""
        strikes = self.random.random() < probability
        self.injected[fault] += strikes
        return strikes
