"""One forward pass: the plan says what to compute, the result what came of it.

These cross from the engine's pure half to its runner and back, inside one process, and are the only things that do.
Those of which there is one for every sequence in every step are structs, which are made several times faster.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from twinfer.core.ids import RequestId
from twinfer.core.request import GenerationRequest
from twinfer.core.tokens import Logprob


class Slice(msgspec.Struct, frozen=True, gc=False):
    """Positions ``[start, start + len(token_ids))`` of one sequence, to be computed in this step.

    Attributes:
        request: whose they are.
        token_ids: the tokens at these positions.
        start: positions before it are in the KV blocks already.
        block_table: pool block of every ``block_tokens`` positions; the first ``ceil(end / block_tokens)`` entries
            count, save those before every layer's window. Append-only while a plan is in flight, so the runner may
            keep what it derived from a prefix of it.
        sample_index: output index of the token to draw from the last position's logits; ``None`` draws nothing.
        emitted: output tokens so far. A live list, append-only while a plan is in flight.
        is_guess: its token, and the last ones of ``emitted``, are not drawn yet, but assumed.
    """

    request: GenerationRequest
    token_ids: Sequence[int]
    start: int
    block_table: Sequence[int]
    sample_index: int | None
    emitted: Sequence[int]
    is_guess: bool = False

    @property
    def end(self) -> int:
        """One past the last position computed."""
        return self.start + len(self.token_ids)


@dataclass(frozen=True, slots=True)
class StepPlan:
    """Work of one step.

    Attributes:
        slices: one per sequence; decoding sequences first. Guesses come last, in order.
        fresh_blocks: pool blocks that changed hands and may stay partly filled, to be zeroed before anything is
            written (the others are overwritten whole before anything can attend to them).
        expired: requests dropped because their deadline passed; a plan may hold nothing else.
        steps: from here on that may be taken as one, as long as nothing comes from outside. The later ones compute the
            tokens that the ones before drew; their blocks are in the tables already. A drawn stop token ends them.
        until: no later step may begin from then on.
        follows: another step ended just before this one, so that its device was not idle in between.
    """

    slices: tuple[Slice, ...]
    fresh_blocks: tuple[int, ...] = ()
    expired: tuple[RequestId, ...] = ()
    steps: int = 1
    until: float = math.inf
    follows: bool = False

    @property
    def num_tokens(self) -> int:
        """Positions computed in this step."""
        return sum(len(part.token_ids) for part in self.slices)


class Draw(msgspec.Struct, frozen=True, gc=False):
    """A sampled token; log probabilities when the request asked for them."""

    token_id: int
    logprob: float | None = None
    top: tuple[Logprob, ...] = ()


@dataclass(frozen=True, slots=True)
class StepResult:
    """What a runner returns.

    Attributes:
        draws: one entry per slice of the plan, in order; ``None`` where nothing was to be drawn.
        failed: requests on which the engine failed, with the reason; their draws are ignored.
        later: tokens of later steps that were taken too, a row for each step with an entry per slice.
        later_s: how long those steps took.
    """

    draws: tuple[Draw | None, ...]
    failed: tuple[tuple[RequestId, str], ...] = ()
    later: tuple[Sequence[int], ...] = ()
    later_s: float = 0.0
