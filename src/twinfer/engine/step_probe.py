"""How long a runner's steps take: chunks of prompts and batches of single tokens, of several sizes."""

import statistics
from collections.abc import Iterator, Sequence

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
REPEATS = 5


def probed_steps() -> list[tuple[Work, ...]]:
    """What is timed: each chunk at the beginning of a prompt and within it, each batch in each context."""
    chunks = [(Work(tokens, before),) for tokens in CHUNKS for before in (0, CONTEXTS[1])]
    return chunks + [(Work(1, context),) * size for size in BATCHES for context in CONTEXTS]


def probe(runner: Runner, layout: KVLayout, num_blocks: int, clock: Clock) -> Iterator[Sample]:
    """Median times of steps that fit into a pool of that many blocks; nothing else may use it meanwhile."""
    for step in probed_steps():
        plan = _plan(step, layout)
        if sum(len(part.block_table) for part in plan.slices) > num_blocks:
            continue
        runner.execute(plan)
        seconds = []
        for _ in range(REPEATS):
            started = clock.now()
            runner.execute(plan)
            seconds.append(clock.now() - started)
        yield Sample(step, statistics.median(seconds))


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
