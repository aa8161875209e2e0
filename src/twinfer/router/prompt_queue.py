"""The prompts that one worker still has to compute, now: what it said last, what it was sent since, less what it did.

A report is up to a quarter of a second old, in which a fast worker computes several prompts. So its queue is taken to
drain at the worker's own pace from report to report, each prompt from when it was sent, and better tiers first.
"""

import math

from twinfer.core.cost import NO_WORK, Ahead, Backlog, StepCost
from twinfer.core.load import LoadReport
from twinfer.core.service import NUM_RANKS


class PromptQueue:
    """Of one worker, as one gateway knows it."""

    def __init__(self) -> None:
        self.unreported = NO_WORK
        """What it was sent since its last report."""
        self._load: LoadReport | None = None
        self._ahead = Ahead()
        self._at = 0.0

    def reported(self, load: LoadReport, now: float) -> None:
        """It says how it is, and counts what it was sent."""
        self._load, self._at, self.unreported = load, now, NO_WORK
        self._ahead.before = list(load.backlog_before or (load.backlog,) * NUM_RANKS)

    def sent(self, work: Backlog, rank: int, now: float) -> None:
        """It is sent a prompt of this rank to compute."""
        self._ahead.before, self._at = self.before(now), now
        self._ahead.add(work, rank)
        self.unreported += work

    def before(self, now: float) -> list[Backlog]:
        """What is not computed yet of the prompts before a new one, by its rank, as far as can be told; last of all."""
        load, passed = self._load, now - self._at
        if load is None or load.cost is None:
            return list(self._ahead.before)
        found: list[Backlog] = []
        for index, work in enumerate(self._ahead.before):
            is_same = index and work == self._ahead.before[index - 1]
            found.append(found[-1] if is_same else _drained(work, passed, load.cost, load))
        return found


def _drained(work: Backlog, passed_s: float, cost: StepCost, load: LoadReport) -> Backlog:
    if not work.tokens:
        return work
    left = 1.0 - passed_s / max(busy_s(cost, load, work), 1e-9)
    return Backlog(math.ceil(work.tokens * left), work.pairs * left) if left > 0.0 else NO_WORK


def busy_s(cost: StepCost, load: LoadReport, work: Backlog) -> float:
    """How long prompts take a worker beside the answers that it reported."""
    steps = -(-work.tokens // cost.chunk_tokens)
    step = cost.decode_s(load.decode_rows, load.decode_context)
    return cost.pace * (steps * step + cost.added_s(work, step))
