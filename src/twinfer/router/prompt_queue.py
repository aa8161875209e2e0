"""The prompts that one worker still has to compute, now: what it said last, what it was sent since, less what it did.

A report is up to a quarter of a second old, in which a fast worker computes several prompts. So its queue is taken to
drain at the worker's own pace from report to report, each prompt from when it was sent.
"""

import math

from twinfer.core.cost import NO_WORK, Backlog, StepCost
from twinfer.core.load import LoadReport


class PromptQueue:
    """Of one worker, as one gateway knows it."""

    def __init__(self) -> None:
        self.unreported = NO_WORK
        """What it was sent since its last report."""
        self._load: LoadReport | None = None
        self._work = NO_WORK
        self._at = 0.0

    def reported(self, load: LoadReport, now: float) -> None:
        """It says how it is, and counts what it was sent."""
        self._load, self._work, self._at, self.unreported = load, load.backlog, now, NO_WORK

    def sent(self, work: Backlog, now: float) -> None:
        """It is sent a prompt to compute."""
        self._work, self._at = self.ahead(now) + work, now
        self.unreported += work

    def ahead(self, now: float) -> Backlog:
        """What is not computed yet, as far as can be told."""
        load, work = self._load, self._work
        if load is None or load.cost is None or not work.tokens:
            return work
        left = 1.0 - (now - self._at) / max(busy_s(load.cost, load, work), 1e-9)
        return Backlog(math.ceil(work.tokens * left), work.pairs * left) if left > 0.0 else NO_WORK


def busy_s(cost: StepCost, load: LoadReport, work: Backlog) -> float:
    """How long prompts take a worker beside the answers that it reported."""
    steps = -(-work.tokens // cost.chunk_tokens)
    return cost.pace * (steps * cost.decode_s(load.decode_rows, load.decode_context) + cost.prefill_s(work))
