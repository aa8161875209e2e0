"""A runner that computes nothing, yet cannot be fooled: KV from tokens, tokens from the KV really present.

1. The state of a position mixes the tenant and all tokens up to it, as a running sum of one hash per position.
2. The KV elements of a position are small integers in [-8, 8) drawn from that state: exact in every KV dtype, so that
   they survive conversion on the way to another worker.
3. The next token is a hash over the elements *read back from the pool* at every position up to the last one. A wrong,
   stale, foreign or missing block therefore gives a wrong token, and a hundred thousand handoffs can be checked
   without a model.
4. Of what a grammar permits, that hash chooses; an answer ends as soon as its grammar lets it. Scripts know none.
5. A step lasts as long as its times say, until an absolute deadline.

Hashes are splitmix64 (Steele, Lea, Flood 2014) on wrapping 64-bit lanes.
"""

import zlib
from collections import OrderedDict
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from twinfer.core.clock import Clock
from twinfer.core.config import EmulationConfig
from twinfer.core.ids import RequestId, TenantId
from twinfer.core.layout import KVLayout
from twinfer.core.request import GenerationRequest
from twinfer.core.step import Draw, Slice, StepPlan, StepResult
from twinfer.core.tokens import Logprob
from twinfer.engine.pacer import Pacer
from twinfer.engine.step_times import FixedTimes, StepTimes
from twinfer.grammar.masks import NO_MASKS, GrammarMasks
from twinfer.kv.elements import ElementView

U64 = NDArray[np.uint64]
MAX_STATES = 1024
"""Sequences of which the last state is kept: more than run at a time."""
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)


def splitmix64(values: U64) -> U64:
    """A bijective scramble of each 64-bit lane."""
    mixed = values + _GOLDEN
    mixed = (mixed ^ (mixed >> np.uint64(30))) * _MIX_1
    mixed = (mixed ^ (mixed >> np.uint64(27))) * _MIX_2
    return mixed ^ (mixed >> np.uint64(31))


def token_states(token_ids: Sequence[int], tenant: TenantId, start: int = 0, before: int = 0) -> U64:
    """The state of each position: a function of whose they are and all tokens up to and including it.

    Args:
        token_ids: from position ``start`` on.
        tenant: whose they are.
        start: the first one's position.
        before: the state of the position before it.
    """
    salt = np.uint64(zlib.crc32(tenant.encode()))
    lanes = np.asarray(token_ids, dtype=np.uint64) * np.uint64(0x100000001B3) + salt
    positions = np.arange(start, start + len(lanes), dtype=np.uint64)
    return np.cumsum(splitmix64(lanes ^ splitmix64(positions)), dtype=np.uint64) + np.uint64(before)


class RunningStates:
    """States of slices. Where a sequence goes on from its last one, a step costs its new positions only."""

    def __init__(self) -> None:
        self._last: OrderedDict[RequestId, tuple[Sequence[int], int, int]] = OrderedDict()

    def of(self, part: Slice) -> U64:
        """The state of each position of a slice."""
        request = part.request
        emitted, end, state = self._last.pop(request.request_id, (None, 0, 0))
        if emitted is part.emitted and end == part.start:
            states = token_states(part.token_ids, request.tenant, part.start, state)
        else:
            states = token_states(_tokens_until(part), request.tenant)[part.start :]
        self._last[request.request_id] = (part.emitted, part.end, int(states[-1]))
        if len(self._last) > MAX_STATES:
            self._last.popitem(last=False)
        return states


class EmulatedRunner:
    """Executes plans on the pool's bytes with numpy.

    Args:
        pool: the pool's bytes.
        layout: the pool's layout.
        vocab_size: tokens are drawn below it.
        config: perhaps an answer to play (the KV is made all the same), or a failure to inject.
        clock: for the absolute deadlines of steps.
        times: how long steps take; those of ``config`` where there are no others.
        masks: of requests with a grammar; without them there may be none.
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
        self._view = ElementView(pool, layout)
        self._vocab_size = vocab_size
        self._config = config
        self._times = times or FixedTimes(config.prefill_tokens_per_s, config.decode_step_ms / 1e3)
        self._pacer = Pacer(clock)
        self._states = RunningStates()
        self._masks = masks
        elements = 2 * layout.num_layers * layout.num_kv_heads * layout.head_dim
        lanes = np.arange(elements, dtype=np.uint64)
        self._lane_keys = splitmix64(lanes)
        self._lane_weights = splitmix64(lanes ^ np.uint64(0x5EED)) | np.uint64(1)

    def execute(self, plan: StepPlan) -> StepResult:
        """Write the KV of every slice, read back what the drawing ones attend to, and wait for the deadline."""
        deadline = self._pacer.begin(self._times.seconds(plan))
        for block in plan.fresh_blocks:
            self._view.zero_block(block)
        masks = NO_MASKS if self._masks is None else self._masks.compute(plan.slices)
        drawing = [part for part in plan.slices if part.sample_index is not None]
        permits = {id(drawing[row]): bits for row, bits in zip(masks.rows, masks.row_bits(), strict=True)}
        draws: list[Draw | None] = []
        failed = dict(masks.failed)
        for part in plan.slices:
            self._write(part)
            if part.sample_index is not None and part.sample_index == self._config.fail_at:
                failed[part.request.request_id] = "the emulated device was told to fail here"
            may_draw = part.sample_index is not None and part.request.request_id not in failed
            draws.append(self._draw(part, permits.get(id(part))) if may_draw else None)
        self._pacer.wait_until(deadline)
        return StepResult(tuple(draws), tuple(failed.items()))

    def to_host(self, blocks: Sequence[int]) -> None:
        """The pool is host memory already."""

    def from_host(self, blocks: Sequence[int]) -> None:
        """The pool is host memory already."""

    def _write(self, part: Slice) -> None:
        states = self._states.of(part)
        elements = (splitmix64(states[:, None] ^ self._lane_keys) >> np.uint64(60)).astype(np.int8) - np.int8(8)
        self._view.write_tokens(part.block_table, part.start, elements)

    def _draw(self, part: Slice, bits: bytes | None) -> Draw:
        if script := self._config.script_ids:
            return self._certain(part.request, script[min(part.sample_index or 0, len(script) - 1)])
        if bits is None:
            return self._certain(part.request, self._number_from_kv(part) % self._vocab_size)
        permitted = np.flatnonzero(
            np.unpackbits(np.frombuffer(bits, np.uint8), count=self._vocab_size, bitorder="little")
        ).tolist()
        choice = sorted(set(permitted).intersection(part.request.stopping.stop_token_ids)) or permitted
        return self._certain(part.request, choice[self._number_from_kv(part) % len(choice)])

    def _number_from_kv(self, part: Slice) -> int:
        elements = self._view.read_tokens(part.block_table, part.end).astype(np.int64).view(np.uint64)
        per_position = elements @ self._lane_weights
        positions = np.arange(part.end, dtype=np.uint64)
        folded = splitmix64(per_position ^ splitmix64(positions)).sum(dtype=np.uint64)
        return int(splitmix64(np.array([folded]))[0])

    @staticmethod
    def _certain(request: GenerationRequest, token_id: int) -> Draw:
        if request.top_logprobs is None:
            return Draw(token_id)
        return Draw(token_id, 0.0, (Logprob(token_id, 0.0),) if request.top_logprobs else ())


def _tokens_until(part: Slice) -> Sequence[int]:
    """All tokens of the sequence up to the slice's end."""
    prompt = part.request.prompt
    return prompt[: part.end] if part.end <= len(prompt) else [*prompt, *part.emitted[: part.end - len(prompt)]]
