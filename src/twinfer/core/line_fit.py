"""Learns how long something takes from what is in it: a line that changes slowly, and a pace that follows at once.

The line is a least-squares fit of relative errors with exponential forgetting, never negative in any term. What was
never seen, such as a prompt on a worker that so far decoded, keeps the value it began with. The pace is a moving
average of the logarithm of actual over fitted time, over about half a second of what was timed: one hiccup moves it
little, and ten slow steps make it. While it is far from 1, the line hardly learns: a device that is slow for a minute
is not another device.
"""

import math
from collections.abc import Sequence
from operator import mul

from twinfer.core.pace import left_after

KEEP = 0.998
"""Share of what was known that one observation leaves."""
PACE_MEMORY_S = 0.5
PACE_REST = 0.999
"""An observation takes the pace that much nearer to 1: what stays is for the line to learn."""
FAR = math.log(2.0)
"""A pace further than this from 1, either way, is not the line's."""
FAR_WEIGHT = 0.02
MAX_LOG_RATIO = math.log(64.0)
SWEEPS = 8
SEED_WEIGHT = 4.0
"""Observations that each term of the line to begin with counts for."""
FEW = 6
"""Observations before which nothing is known, unless there was a line to begin with."""
SOON, EVERY = 8, 16
"""The line is fitted anew once there is an eighth more to fit it to, or that many more."""
TINY = 1e-12


class LineFit:
    """``seconds = pace * sum(term * feature)``.

    Args:
        line: the terms to begin with; those that are 0 are unknown, and if all are, nothing is known at first.
    """

    def __init__(self, line: Sequence[float]) -> None:
        size = range(len(line))
        self._line = list(line)
        self._seeded = any(line)
        self._moments = [[SEED_WEIGHT / line[i] ** 2 if i == j and line[i] else 0.0 for j in size] for i in size]
        self._targets = [SEED_WEIGHT / term if term else 0.0 for term in line]
        self._log_pace = 0.0
        self._num_observed = 0
        self._num_fitted = 0

    @property
    def num_observed(self) -> int:
        """How often something was timed."""
        return self._num_observed

    @property
    def knows(self) -> bool:
        """Whether there is a line."""
        return self._seeded or self._num_observed >= FEW

    @property
    def line(self) -> tuple[float, ...]:
        """The terms, fitted to what was observed."""
        self._fit()
        return tuple(self._line)

    def pace(self, features: Sequence[float] | None = None, age_s: float = 0.0) -> float:
        """How much slower than the line it was lately, or is now, if what is under way took longer already."""
        pace = math.exp(self._log_pace)
        expected = self._expected(features) if features is not None else 0.0
        return max(pace, min(age_s / expected, math.exp(MAX_LOG_RATIO))) if expected > TINY else pace

    def seconds(self, features: Sequence[float]) -> float:
        """How long it would take now."""
        return self.pace() * self._expected(features)

    def observe(self, features: Sequence[float], seconds: float, idle_s: float = 0.0) -> None:
        """It took that long, after so long of nothing, in which whoever asks for the pace has begun to forget it."""
        if seconds <= 0.0:
            return
        self._log_pace *= left_after(idle_s)
        if self.knows:
            self._fit()
            expected = self._expected(features)
            ratio = math.log(seconds / expected) if expected > TINY else 0.0
            ratio = max(-MAX_LOG_RATIO, min(MAX_LOG_RATIO, ratio))
            self._log_pace += (1.0 - math.exp(-seconds / PACE_MEMORY_S)) * (ratio - self._log_pace)
            self._log_pace *= PACE_REST
        self._learn(features, seconds, FAR_WEIGHT if abs(self._log_pace) > FAR else 1.0)
        self._num_observed += 1

    def _expected(self, features: Sequence[float]) -> float:
        seconds: float = sum(map(mul, self._line, features))
        return seconds

    def _learn(self, features: Sequence[float], seconds: float, weight: float) -> None:
        keep = 1.0 - (1.0 - KEEP) * weight
        scaled = [feature / seconds for feature in features]
        for row, value in zip(self._moments, scaled, strict=True):
            for column, other in enumerate(scaled):
                row[column] = keep * row[column] + weight * value * other
        self._targets = [keep * old + weight * value for old, value in zip(self._targets, scaled, strict=True)]

    def _fit(self) -> None:
        """Coordinate descent, which leaves alone what was never seen."""
        if self._num_observed - self._num_fitted < min(EVERY, max(1, self._num_observed // SOON)):
            return
        self._num_fitted = self._num_observed
        line = self._line
        for _ in range(SWEEPS):
            for index, row in enumerate(self._moments):
                if row[index] > TINY:
                    residual = self._targets[index] - sum(map(mul, row, line))
                    line[index] = max(0.0, line[index] + residual / row[index])
