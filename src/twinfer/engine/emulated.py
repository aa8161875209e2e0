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
from twinfer.engine.kv_content import Elements, Fingerprints, KVContent
from twinfer.engine.pacer import Pacer
from twinfer.engine.step_times import FixedTimes, SteadyTimes, StepTimes
from twinfer.engine.token_states import U64, RunningStates, salt, splitmix64, token_hashes
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
        self._content: KVContent = Fingerprints(pool, layout) if layout.is_virtual else Elements(pool, layout)
        self._draw_below = np.uint64(min(config.draw_below or vocab_size, vocab_size))
        self._config = config
        fixed = FixedTimes(config.prefill_tokens_per_s, config.decode_step_ms / 1e3)
        self._times = SteadyTimes(times or fixed)
        self.changed = threading.Event()
        self._pacer = Pacer(clock, self.changed)
        self._states = RunningStates()
        self._masks = None if config.script_ids else masks

    def execute(self, plan: StepPlan) -> StepResult:
        """Write the KV of every slice, read back what the drawing ones attend to, and wait for the deadline."""
        ends = self._pacer.begin(self._seconds(plan), follows=plan.follows)
        ends = ends[: 1 + sum(end < plan.until for end in ends[:-1])]
        for block in plan.fresh_blocks:
            self._content.zero(block)
        if not self._only_decodes(plan):
            result = self._step(plan.slices)
            self._pacer.wait(ends[:1])
            return result
        run = _DecodeRun(plan.slices, len(ends), self._states)
        rows = self._draw_rows(run, len(ends))
        taken = self._pacer.wait(ends[: len(rows)])
        run.keep(taken)
        later_s = ends[taken - 1] - ends[0]
        return StepResult(tuple(map(Draw, rows[0])), later=tuple(rows[1:taken]), later_s=later_s)

    def to_host(self, blocks: Sequence[int]) -> None:
        """The pool is host memory already."""

    def from_host(self, blocks: Sequence[int]) -> None:
        """The pool is host memory already."""

    def _seconds(self, plan: StepPlan) -> list[float]:
        """How long the steps take that are to be taken as one."""
        if plan.steps == 1 or not self._only_decodes(plan):
            return [self._times.seconds(plan)]
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
        if permitted is None or self._config.script_ids:
            return self._tokens([part], fold, 0)[0]
        bits = np.unpackbits(np.frombuffer(permitted, np.uint8), bitorder="little")
        token_ids = np.flatnonzero(bits).tolist()
        choice = sorted(set(token_ids).intersection(part.request.stopping.stop_token_ids)) or token_ids
        return int(choice[int(splitmix64(fold & self._content.mask)[0]) % len(choice)])

    def _draw_rows(self, run: "_DecodeRun", steps: int) -> list[list[int]]:
        """The tokens of each step, up to the one that draws a stop token."""
        content, parts = self._content, run.parts
        totals = content.folds([part.block_table for part in parts], [part.start for part in parts])
        rows: list[list[int]] = []
        while len(rows) < steps:
            states = run.advance(rows[-1] if rows else [part.token_ids[0] for part in parts])
            totals = totals + content.terms(states, run.positions[len(rows)])
            rows.append(self._tokens(parts, totals, len(rows)))
            if any(map(_stops, parts, rows[-1], [len(rows)] * len(parts))):
                break
        content.write_all([part.block_table for part in parts], run.positions[0], np.stack(run.states, axis=1))
        return rows

    def _tokens(self, parts: Sequence[Slice], folds: U64, ahead: int) -> list[int]:
        """What sequences with these folds draw, so many steps after those of their slices."""
        if script := self._config.script_ids:
            return [script[min((part.sample_index or 0) + ahead, len(script) - 1)] for part in parts]
        tokens: list[int] = (splitmix64(folds & self._content.mask) % self._draw_below).tolist()
        return tokens


class _DecodeRun:
    """States of sequences that decode side by side, step by step."""

    def __init__(self, parts: Sequence[Slice], steps: int, known: RunningStates) -> None:
        self.parts = parts
        self.states: list[U64] = []
        self._known = known
        self._before: U64 = np.array([known.before(part) for part in parts], np.uint64)
        start: U64 = np.array([part.start for part in parts], np.uint64)
        self.positions: U64 = start + np.arange(steps, dtype=np.uint64)[:, None]
        """Where each of them is in each step."""
        self._position_hashes = splitmix64(self.positions)
        self._salts: U64 = np.array([salt(part.request.tenant) for part in parts], np.uint64)

    def advance(self, token_ids: Sequence[int]) -> U64:
        """The states of the next positions, which hold these tokens."""
        hashes = self._position_hashes[len(self.states)]
        self._before = self._before + token_hashes(np.array(token_ids, np.uint64), hashes, self._salts)
        self.states.append(self._before)
        return self._before

    def keep(self, steps: int) -> None:
        """Only so many of them were taken."""
        for part, state in zip(self.parts, self.states[steps - 1].tolist(), strict=True):
            self._known.keep(part, part.start + steps, state)


def _stops(part: Slice, token_id: int, num_steps: int) -> bool:
    """Whether the answer ends with a token that its sequence drew in that step of a run."""
    stopping = part.request.stopping
    return token_id in stopping.stop_token_ids and (part.sample_index or 0) + num_steps > stopping.min_tokens


def _certain(request: GenerationRequest, token_id: int) -> Draw:
    if request.top_logprobs is None:
        return Draw(token_id)
    return Draw(token_id, 0.0, (Logprob(token_id, 0.0),) if request.top_logprobs else ())
