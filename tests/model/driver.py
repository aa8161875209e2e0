"""Drives a ModelRunner with hand-written plans: the smallest engine that can generate."""

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch

from twinfer.core.ids import ModelId, RequestId, TenantId
from twinfer.core.layout import KVDtype
from twinfer.core.request import GenerationRequest, Sampling, Stopping
from twinfer.core.step import Draw, Slice, StepPlan, StepResult
from twinfer.model.load import load_runner
from twinfer.model.paged_kv import PagedKV, pool_tensor
from twinfer.model.recorder import Recorder
from twinfer.model.runner import ModelRunner
from twinfer.model.served import ServedModel, describe
from twinfer.model.spec import StoredFormat

GREEDY = Sampling(temperature=0.0)
BLOCK_TOKENS = 4
NUM_BLOCKS = 200
SCRATCH = NUM_BLOCKS - 1
"""Not dealt out where steps are recorded."""


@dataclass(frozen=True)
class Place:
    """Where a model runs, and what records its decode steps there."""

    device: str = "cpu"
    recorder: Recorder | None = None


HOST = Place()


def make_request(name: str, prompt: Sequence[int], sampling: Sampling = GREEDY, **options: object) -> GenerationRequest:
    """A request whose limits do not matter to a runner."""
    stopping = options.pop("stopping", Stopping(max_tokens=1000))
    return GenerationRequest(
        RequestId(name),
        ModelId("m"),
        TenantId("t"),
        tuple(prompt),
        stopping,
        sampling,
        **options,  # type: ignore[arg-type]
    )


@dataclass(eq=False)
class Progress:
    """One request on its way: its blocks and what came out."""

    request: GenerationRequest
    blocks: list[int] = field(default_factory=list)
    computed: int = 0
    draws: list[Draw] = field(default_factory=list)

    @property
    def emitted(self) -> list[int]:
        """Output tokens so far."""
        return [draw.token_id for draw in self.draws]

    @property
    def tokens(self) -> list[int]:
        """Prompt and output."""
        return [*self.request.prompt, *self.emitted]


class Driver:
    """Holds a pool whose blocks it deals out in random order, and steps sequences through the runner."""

    def __init__(
        self,
        directory: Path,
        cache_dir: Path,
        weights: StoredFormat = "fp32",
        kv_dtype: KVDtype = "fp32",
        max_context_tokens: int = 0,
        place: Place = HOST,
    ) -> None:
        self.model: ServedModel = describe(str(directory), cache_dir, weights, kv_dtype, max_context_tokens)
        self.layout = self.model.layout(BLOCK_TOKENS)
        self.buffer = bytearray(NUM_BLOCKS * self.layout.block_bytes)
        self.pool: torch.Tensor = pool_tensor(memoryview(self.buffer), self.layout, NUM_BLOCKS).to(place.device)
        kv = PagedKV(self.pool, self.layout, SCRATCH if place.recorder else None)
        self.runner: ModelRunner = load_runner(self.model, kv, cache_dir, place.recorder)
        dealt = SCRATCH if place.recorder else NUM_BLOCKS
        self.free = random.Random(0).sample(range(dealt), dealt)

    def slice_of(self, sequence: Progress, chunk: int) -> Slice:
        """The next ``chunk`` positions of a sequence at most; the last ones draw."""
        tokens = sequence.tokens
        end = min(len(tokens), sequence.computed + chunk)
        missing = self.layout.blocks_for(end) - len(sequence.blocks)
        sequence.blocks.extend(self.free.pop() for _ in range(missing))
        return Slice(
            request=sequence.request,
            token_ids=tokens[sequence.computed : end],
            start=sequence.computed,
            block_table=sequence.blocks,
            sample_index=len(sequence.draws) if end == len(tokens) else None,
            emitted=sequence.emitted,
        )

    def step(self, sequences: Sequence[Progress], chunk: int = 1000) -> StepResult:
        """One plan over all sequences, those with most done first; zeroes the blocks that it binds."""
        bound = {id(sequence): len(sequence.blocks) for sequence in sequences}
        ordered = sorted(sequences, key=lambda sequence: not sequence.draws)
        slices = tuple(self.slice_of(sequence, chunk) for sequence in ordered)
        fresh = tuple(block for sequence in ordered for block in sequence.blocks[bound[id(sequence)] :])
        result = self.runner.execute(StepPlan(slices, fresh_blocks=fresh))
        for sequence, part, draw in zip(ordered, slices, result.draws, strict=True):
            sequence.computed = part.end
            if draw is not None:
                sequence.draws.append(draw)
        return result

    def generate(self, requests: Sequence[GenerationRequest], num_tokens: int, chunk: int = 1000) -> list[list[Draw]]:
        """The first ``num_tokens`` draws of each request, all in one batch; gives the blocks back."""
        sequences = [Progress(request) for request in requests]
        while waiting := [sequence for sequence in sequences if len(sequence.draws) < num_tokens]:
            result = self.step(waiting, chunk)
            assert result.failed == ()
        for sequence in sequences:
            self.free.extend(sequence.blocks)
        return [sequence.draws for sequence in sequences]

    def greedy(self, prompts: Sequence[Sequence[int]], num_tokens: int, chunk: int = 1000) -> list[list[int]]:
        """Greedy tokens of all prompts in one batch."""
        requests = [make_request(str(i), prompt) for i, prompt in enumerate(prompts)]
        return [[draw.token_id for draw in draws] for draws in self.generate(requests, num_tokens, chunk)]

    def staggered(self, prompts: Sequence[Sequence[int]], num_tokens: int, chunk: int) -> list[list[int]]:
        """The same, with one more prompt joining in every third step."""
        sequences = [Progress(make_request(str(i), prompt)) for i, prompt in enumerate(prompts)]
        steps = 0
        while waiting := [sequence for sequence in sequences if len(sequence.draws) < num_tokens]:
            self.step([sequence for sequence in waiting if sequences.index(sequence) * 3 <= steps], chunk)
            steps += 1
        for sequence in sequences:
            self.free.extend(sequence.blocks)
        return [sequence.emitted for sequence in sequences]
