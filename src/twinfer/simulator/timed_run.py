"""A run of steps in virtual time: when each of them ends, from the times of three of them."""

import math
from dataclasses import dataclass, replace

from twinfer.core.step import StepPlan
from twinfer.engine.step_times import StepTimes

ALIKE = 1e-9
"""Relative difference between a step's time and that on the line through others; far above rounding."""


@dataclass(frozen=True, slots=True)
class TimedRun:
    """Steps of one plan whose times grow evenly, or its first one alone.

    Attributes:
        started: when it began.
        steps: how many.
        first_s: time of the first.
        growth_s: by which each takes longer than the one before.
    """

    plan: StepPlan
    started: float
    steps: int
    first_s: float
    growth_s: float = 0.0

    def end(self, steps: int) -> float:
        """When so many of them are over."""
        return self.started + steps * self.first_s + self.growth_s * (steps * (steps - 1) / 2)

    def over_at(self, now: float) -> int:
        """How many are over then, the last one never among them: it is finished, not taken."""
        low, high = 0, self.steps - 1
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (middle, high) if self.end(middle) <= now else (low, middle - 1)
        return low

    def step_s(self, index: int) -> float:
        """Time of one of them."""
        return self.first_s + self.growth_s * index

    def first(self, steps: int) -> "TimedRun":
        """So many of them only."""
        return replace(self, steps=steps)


def timed_run(times: StepTimes, plan: StepPlan, started: float) -> TimedRun:
    """As many steps of a plan as take evenly longer, and begin in time.

    A device's time is the greatest of sums that grow evenly with the contexts, and so bends upwards where another sum
    becomes the greatest: where the first, the second and the last step lie on a line, so do all between them.
    """
    first_s = times.seconds(plan)
    if plan.steps == 1:
        return TimedRun(plan, started, 1, first_s)
    growth_s = times.seconds(plan, 1) - first_s
    steps = plan.steps
    while steps > 2:
        last_s = times.seconds(plan, steps - 1)
        if math.isclose(last_s, first_s + growth_s * (steps - 1), rel_tol=ALIKE):
            break
        steps = max(2, steps // 2)
    run = TimedRun(plan, started, steps, first_s, growth_s)
    return run.first(run.over_at(plan.until) + 1) if run.end(steps - 1) >= plan.until else run
