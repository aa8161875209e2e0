"""What is believed of each worker and link now, from what was reported and when: pure, the time is an argument.

A worker's own line and pace come with its report. What only a router can know is how old they are: nobody learns that
a worker or a link has recovered as long as nobody uses it. So a pace that nothing new was learned of goes back to 1 by
half, in logarithms, every few seconds; after a while the worker is tried with a request again, and if it is still slow
it says so within a few steps.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise

import msgspec

from twinfer.core.answers import UNKNOWN_LENGTHS, AnswerLengths, bin_of, lengths
from twinfer.core.cost import Backlog, LinkCost, StepCost
from twinfer.core.ids import WorkerId
from twinfer.core.load import LoadReport
from twinfer.core.pace import faded

SHARE_MEMORY_S = 2.0
"""Over which the share of prompts in a worker's time is averaged."""
KEEP_ANSWERS = 0.995
"""What an answer leaves of the weight of those before it in the distribution of lengths."""
FIRST_ANSWERS = 10.0
"""Answers that the distribution assumed at first counts for."""


@dataclass(slots=True)
class _Worker:
    steps: int
    steps_at: float
    prefill_tokens: int
    share: float = 0.0
    links: dict[WorkerId, tuple[int, float]] = field(default_factory=dict)
    """By source: transfers when there was news, and the time of it."""
    slow_links: bool = False


class CostBook:
    """What one router has heard of all workers, and when."""

    def __init__(self) -> None:
        self._workers: dict[WorkerId, _Worker] = {}
        shares = UNKNOWN_LENGTHS.below
        self._counts = [FIRST_ANSWERS * (end - begin) for begin, end in pairwise(shares)]
        self._answers: AnswerLengths | None = UNKNOWN_LENGTHS

    @property
    def answers(self) -> AnswerLengths:
        """Lengths of the answers that ended lately; what a request allows at most says little of them."""
        if self._answers is None:
            self._answers = lengths(self._counts)
        return self._answers

    def answered(self, num_tokens: int) -> None:
        """An answer ended."""
        self._counts = [KEEP_ANSWERS * count for count in self._counts]
        self._counts[bin_of(num_tokens)] += 1.0
        self._answers = None

    def reported(self, worker: WorkerId, load: LoadReport, now: float) -> None:
        """A worker says how it is."""
        counters, known = load.counters, self._workers.get(worker)
        if known is None or counters.steps < known.steps:
            known = self._workers[worker] = _Worker(counters.steps, now, counters.prefill_tokens)
        elif counters.steps > known.steps:
            known.share = self._share(known, load, now)
            known.steps, known.steps_at, known.prefill_tokens = counters.steps, now, counters.prefill_tokens
        known.slow_links = any(not 0.8 < link.pace < 1.25 for link in load.links.values())
        for source, link in load.links.items():
            if known.links.get(source, (-1, 0.0))[0] != link.transfers:
                known.links[source] = link.transfers, now

    def forget(self, worker: WorkerId) -> None:
        """It is gone; another start of it has nothing in common with it."""
        self._workers.pop(worker, None)

    def cost(self, worker: WorkerId, load: LoadReport, now: float) -> StepCost | None:
        """Of its steps, as believed now."""
        cost, known = load.cost, self._workers.get(worker)
        if cost is None or known is None:
            return cost
        busy = load.running > 0 and cost.pace > 1.0  # a step under way is news by itself
        pace = cost.pace if busy else faded(cost.pace, now - known.steps_at)
        return cost if pace == cost.pace else msgspec.structs.replace(cost, pace=pace)

    def links(self, worker: WorkerId, load: LoadReport, now: float) -> Mapping[WorkerId, LinkCost]:
        """Of transfers to it, as believed now."""
        known = self._workers.get(worker)
        if known is None or not known.slow_links:
            return load.links
        return {
            source: msgspec.structs.replace(link, pace=faded(link.pace, now - known.links[source][1]))
            for source, link in load.links.items()
            if source in known.links
        }

    def prefill_share(self, worker: WorkerId, now: float) -> float:
        """Share of its time that prompts took lately."""
        known = self._workers.get(worker)
        return 0.0 if known is None else known.share * 0.5 ** (max(now - known.steps_at, 0.0) / SHARE_MEMORY_S)

    def _share(self, known: _Worker, load: LoadReport, now: float) -> float:
        elapsed, busy = max(now - known.steps_at, 1e-3), 0.0
        if load.cost is not None:
            computed = Backlog(load.counters.prefill_tokens - known.prefill_tokens)
            hidden = load.cost.decode_s(load.decode_rows, load.decode_context) if load.decode_rows else 0.0
            busy = load.cost.pace * load.cost.added_s(computed, hidden)
        keep: float = 0.5 ** (elapsed / SHARE_MEMORY_S)
        return keep * known.share + (1.0 - keep) * min(1.0, busy / elapsed)
