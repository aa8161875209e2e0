"""How long a runner's steps take: chunks of prompts and batches of single tokens, of several sizes."""

import math
from collections.abc import Sequence

from twinfer.core.clock import Clock
from twinfer.core.ids import ModelId, RequestId, TenantId
from twinfer.core.layout import KVLayout
from twinfer.core.request import GenerationRequest, Sampling, Stopping
from twinfer.core.step import Slice, StepPlan
from twinfer.devices.fit_steps import Sample
from twinfer.devices.placement import Work
from twinfer.engine.paged import Runner

CHUNKS = (16, 32, 64, 128, 256, 512)
BATCHES = (1, 2, 4, 8, 16)
CONTEXTS = (64, 512, 1536)
REPEATS = 7


def probed_steps() -> list[tuple[Work, ...]]:
    """What is timed: each chunk at the beginning of a prompt and within it, each batch in each context."""
    chunks = [(Work(tokens, before),) for tokens in CHUNKS for before in (0, CONTEXTS[1])]
    return chunks + [(Work(1, context),) * size for size in BATCHES for context in CONTEXTS]


def probe(runner: Runner, layout: KVLayout, num_blocks: int, clock: Clock) -> list[Sample]:
    """Times of steps that fit into a pool of that many blocks, which nothing else may use meanwhile.

    All are timed in turn, several times, and the shortest time counts: what else the machine did is not the runner's.
    """
    plans = [(step, _plan(step, layout)) for step in probed_steps()]
    fitting = [one for one in plans if sum(len(part.block_table) for part in one[1].slices) <= num_blocks]
    shortest = [math.inf] * len(fitting)
    for _ in range(REPEATS):
        for index, (_, plan) in enumerate(fitting):
            started = clock.now()
            runner.execute(plan)
            shortest[index] = min(shortest[index], clock.now() - started)
    return [Sample(step, seconds) for (step, _), seconds in zip(fitting, shortest, strict=True)]


def _plan(step: Sequence[Work], layout: KVLayout) -> StepPlan:
    """Slices with blocks of their own, whatever these hold."""
    slices, first = [], 0
    for number, work in enumerate(step):
        blocks = tuple(range(first, first + layout.blocks_for(work.end)))
        first += len(blocks)
        prompt = (0,) * (work.end if work.new_tokens > 1 else work.context_tokens)
        request = GenerationRequest(
            RequestId(f"probe-{number}"),
            ModelId(""),
            TenantId(""),
            prompt,
            Stopping(work.end),
            Sampling(temperature=0.0),
        )
        emitted = () if work.new_tokens > 1 else (0,)
        slices.append(Slice(request, (0,) * work.new_tokens, work.context_tokens, blocks, len(emitted), emitted))
    return StepPlan(tuple(slices))
