"""A runner that computes nothing, yet cannot be fooled: KV from tokens, tokens from the KV really present.

1. The state of a position is a hash of the tenant and all tokens up to it.
2. The KV of a position is made from its state.
3. The next token is a hash over the KV *read back from the pool* at every position up to the last one. A wrong, stale,
   foreign or missing block therefore gives a wrong token, and a hundred thousand handoffs can be checked without a
   model.
4. Of what a grammar permits, that hash chooses; an answer ends as soon as its grammar lets it. Scripts know none.
5. A step lasts as long as its times say, until an absolute deadline. Of decode steps that may be taken as one, as many
   are as fit into a frame; something that comes from outside ends them with the step that it falls into.
"""

import threading
from collections.abc import Sequence
from itertools import accumulate

import numpy as np

from twinfer.core.clock import Clock
from twinfer.core.config import EmulationConfig
from twinfer.core.layout import KVLayout
from twinfer.core.request import GenerationRequest
from twinfer.core.step import Draw, Slice, StepPlan, StepResult
from twinfer.core.tokens import Logprob
from twinfer.engine.decode_steps import Decoding, fast_decode
from twinfer.engine.kv_content import Elements, Fingerprints, KVContent
from twinfer.engine.pacer import Pacer
from twinfer.engine.step_times import FixedTimes, SteadyTimes, StepTimes
from twinfer.engine.token_states import RunningStates, salt, splitmix64
from twinfer.grammar.masks import NO_MASKS, GrammarMasks

FRAME_S = 1.25e-3
"""Steps are taken as one only as long as they end within that: nobody waits longer for a token because of it."""


class EmulatedRunner:
    """Executes plans on the pool's bytes with numpy.

    Args:
        pool: the pool's bytes.
        layout: the pool's layout.
        vocab_size: tokens are drawn below it, and below what ``config`` says.
        config: perhaps an answer to play (the KV is made all the same), or a failure to inject.
        clock: for the absolute deadlines of steps.
        times: how long steps take; those of ``config`` where there are no others.
        masks: of requests with a grammar; without them there may be none.

    Attributes:
        changed: set from outside when something has changed after a plan was made.
    """

    def __init__(
        self,
        pool: memoryview,
        layout: KVLayout,
        vocab_size: int,
        config: EmulationConfig,
        clock: Clock,
        times: StepTimes | None = None,
        masks: GrammarMasks | None = None,
    ) -> None:
        self._content: KVContent = (
            Fingerprints(pool, layout, fast_decode()) if layout.is_virtual else Elements(pool, layout)
        )
        self._draw_below = min(config.draw_below or vocab_size, vocab_size)
        self._config = config
        fixed = FixedTimes(config.prefill_tokens_per_s, config.decode_step_ms / 1e3)
        self._times = SteadyTimes(times or fixed)
        self.changed = threading.Event()
        self._pacer = Pacer(clock, self.changed)
        self._states = RunningStates(config.seed)
        self._masks = None if config.script_ids else masks

    def execute(self, plan: StepPlan) -> StepResult:
        """Write the KV of every slice, read back what the drawing ones attend to, and wait for the deadline."""
        only_decodes = self._only_decodes(plan)
        seconds = self._run_seconds(plan) if only_decodes and plan.steps > 1 else [self._times.seconds(plan)]
        ends = self._pacer.begin(seconds, follows=plan.follows)
        ends = ends[: 1 + sum(end < plan.until for end in ends[:-1])]
        for block in plan.fresh_blocks:
            self._content.zero(block)
        if not only_decodes:
            result = self._step(plan.slices)
            self._pacer.wait(ends[:1])
            return result
        found = self._content.decode(self._decoding(plan.slices, len(ends)))
        rows = found.tokens.tolist()
        rows = rows[: _steps_until_stop(plan.slices, rows)]
        taken = self._pacer.wait(ends[: len(rows)])
        self._states.keep_all(plan.slices, taken, found.states[taken - 1].tolist())
        later_s = ends[taken - 1] - ends[0]
        return StepResult(tuple(map(Draw, rows[0])), later=tuple(rows[1:taken]), later_s=later_s)

    def to_host(self, blocks: Sequence[int]) -> None:
        """The pool is host memory already."""

    def from_host(self, blocks: Sequence[int]) -> None:
        """The pool is host memory already."""

    def _run_seconds(self, plan: StepPlan) -> list[float]:
        """How long the steps take that are to be taken as one."""
        seconds = self._times.run_seconds(plan, plan.steps)
        return [taken for taken, end in zip(seconds, accumulate(seconds), strict=True) if end <= FRAME_S] or seconds[:1]

    def _only_decodes(self, plan: StepPlan) -> bool:
        """Whether each slice is a sequence that draws a token from one position, which is all that is to be told."""
        return self._config.fail_at < 0 and all(
            len(part.token_ids) == 1
            and part.sample_index is not None
            and part.request.top_logprobs is None
            and part.request.grammar is None
            and not part.is_guess
            for part in plan.slices
        )

    def _step(self, parts: Sequence[Slice]) -> StepResult:
        masks = NO_MASKS if self._masks is None else self._masks.compute(parts)
        drawing = [part for part in parts if part.sample_index is not None]
        permits = {id(drawing[row]): bits for row, bits in zip(masks.rows, masks.row_bits(), strict=True)}
        draws: list[Draw | None] = []
        failed = dict(masks.failed)
        for part in parts:
            self._content.write(part.block_table, part.start, self._states.of(part))
            if part.sample_index is not None and part.sample_index == self._config.fail_at:
                failed[part.request.request_id] = "the emulated device was told to fail here"
            may_draw = part.sample_index is not None and part.request.request_id not in failed
            draws.append(_certain(part.request, self._token(part, permits.get(id(part)))) if may_draw else None)
        return StepResult(tuple(draws), tuple(failed.items()))

    def _token(self, part: Slice, permitted: bytes | None) -> int:
        fold = self._content.folds([part.block_table], [part.end])
        if self._config.script_ids:
            return self._scripted([part], 0)[0]
        drawn = int(splitmix64(fold & self._content.mask)[0])
        if permitted is None:
            return drawn % self._draw_below
        bits = np.unpackbits(np.frombuffer(permitted, np.uint8), bitorder="little")
        token_ids = np.flatnonzero(bits).tolist()
        choice = sorted(set(token_ids).intersection(part.request.stopping.stop_token_ids)) or token_ids
        return int(choice[drawn % len(choice)])

    def _decoding(self, parts: Sequence[Slice], steps: int) -> Decoding:
        given = [self._scripted(parts, ahead) for ahead in range(steps)] if self._config.script_ids else None
        return Decoding(
            tables=[part.block_table for part in parts],
            starts=[part.start for part in parts],
            before=[self._states.before(part) for part in parts],
            salts=[salt(part.request.tenant, self._config.seed) for part in parts],
            token_ids=[part.token_ids[0] for part in parts],
            steps=steps,
            draw_below=self._draw_below,
            given=given,
        )

    def _scripted(self, parts: Sequence[Slice], ahead: int) -> list[int]:
        """What an answer that is played says so many steps after those of these slices."""
        script = self._config.script_ids
        return [script[min((part.sample_index or 0) + ahead, len(script) - 1)] for part in parts]


def _steps_until_stop(parts: Sequence[Slice], rows: Sequence[Sequence[int]]) -> int:
    """How many of the steps there are up to the one that draws a stop token."""
    steps = len(rows)
    for column, part in enumerate(parts):
        stopping = part.request.stopping
        if stopping.stop_token_ids:
            first = max(0, stopping.min_tokens - (part.sample_index or 0))
            ahead = (step for step in range(first, steps) if rows[step][column] in stopping.stop_token_ids)
            steps = min(steps, next(ahead, steps) + 1)
    return steps


def _certain(request: GenerationRequest, token_id: int) -> Draw:
    if request.top_logprobs is None:
        return Draw(token_id)
    return Draw(token_id, 0.0, (Logprob(token_id, 0.0),) if request.top_logprobs else ())
