"""A runner that computes nothing, yet cannot be fooled: KV from tokens, tokens from the KV really present.

1. The state of a position mixes the tenant and all tokens up to it, as a running sum of one hash per position.
2. The KV elements of a position are small integers in [-8, 8) drawn from that state: exact in every KV dtype, so that
   they survive conversion on the way to another worker.
3. The next token is a hash over the elements *read back from the pool* at every position up to the last one. A wrong,
   stale, foreign or missing block therefore gives a wrong token, and a hundred thousand handoffs can be checked
   without a model.
4. A step lasts as long as the profile says, measured against an absolute deadline.

Hashes are splitmix64 (Steele, Lea, Flood 2014) on wrapping 64-bit lanes.
"""

import threading
import zlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from twinfer.core.clock import Clock
from twinfer.core.config import EmulationConfig
from twinfer.core.ids import TenantId
from twinfer.core.layout import KVLayout
from twinfer.core.request import GenerationRequest
from twinfer.core.step import Draw, Slice, StepPlan, StepResult
from twinfer.core.tokens import Logprob
from twinfer.kv.elements import ElementView

U64 = NDArray[np.uint64]
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)


def splitmix64(values: U64) -> U64:
    """A bijective scramble of each 64-bit lane."""
    mixed = values + _GOLDEN
    mixed = (mixed ^ (mixed >> np.uint64(30))) * _MIX_1
    mixed = (mixed ^ (mixed >> np.uint64(27))) * _MIX_2
    return mixed ^ (mixed >> np.uint64(31))


def token_states(token_ids: Sequence[int], tenant: TenantId) -> U64:
    """The state of each position: a function of whose they are and all tokens up to and including it."""
    salt = np.uint64(zlib.crc32(tenant.encode()))
    lanes = np.asarray(token_ids, dtype=np.uint64) * np.uint64(0x100000001B3) + salt
    positions = np.arange(len(lanes), dtype=np.uint64)
    return np.cumsum(splitmix64(lanes ^ splitmix64(positions)), dtype=np.uint64)


class EmulatedRunner:
    """Executes plans on the pool's bytes with numpy.

    Args:
        pool: the pool's bytes.
        layout: the pool's layout.
        vocab_size: tokens are drawn below it.
        config: step times, and perhaps an answer to play (the KV is made all the same) or a failure to inject.
        clock: for the absolute deadlines of step times.
    """

    def __init__(
        self, pool: memoryview, layout: KVLayout, vocab_size: int, config: EmulationConfig, clock: Clock
    ) -> None:
        self._view = ElementView(pool, layout)
        self._vocab_size = vocab_size
        self._config = config
        self._clock = clock
        elements = 2 * layout.num_layers * layout.num_kv_heads * layout.head_dim
        lanes = np.arange(elements, dtype=np.uint64)
        self._lane_keys = splitmix64(lanes)
        self._lane_weights = splitmix64(lanes ^ np.uint64(0x5EED)) | np.uint64(1)
        self._pause = threading.Event()

    def execute(self, plan: StepPlan) -> StepResult:
        """Write the KV of every slice, read back what the drawing ones attend to, and wait for the deadline."""
        deadline = self._clock.now() + self._duration_s(plan)
        for block in plan.fresh_blocks:
            self._view.zero_block(block)
        draws: list[Draw | None] = []
        failed = []
        for part in plan.slices:
            self._write(part)
            if part.sample_index is not None and part.sample_index == self._config.fail_at:
                failed.append((part.request.request_id, "the emulated device was told to fail here"))
                draws.append(None)
            else:
                draws.append(None if part.sample_index is None else self._draw(part, part.sample_index))
        while (left := deadline - self._clock.now()) > 0:
            self._pause.wait(left)
        return StepResult(tuple(draws), tuple(failed))

    def to_host(self, blocks: Sequence[int]) -> None:
        """The pool is host memory already."""

    def from_host(self, blocks: Sequence[int]) -> None:
        """The pool is host memory already."""

    def _duration_s(self, plan: StepPlan) -> float:
        prefill_tokens = sum(len(part.token_ids) for part in plan.slices if len(part.token_ids) > 1)
        seconds = 0.0
        if prefill_tokens and self._config.prefill_tokens_per_s:
            seconds += prefill_tokens / self._config.prefill_tokens_per_s
        if any(len(part.token_ids) == 1 for part in plan.slices):
            seconds += self._config.decode_step_ms / 1e3
        return seconds

    def _write(self, part: Slice) -> None:
        tokens = _tokens_until(part)
        states = token_states(tokens, part.request.tenant)[part.start :]
        elements = (splitmix64(states[:, None] ^ self._lane_keys) >> np.uint64(60)).astype(np.int8) - np.int8(8)
        self._view.write_tokens(part.block_table, part.start, elements)

    def _draw(self, part: Slice, index: int) -> Draw:
        if script := self._config.script_ids:
            return self._certain(part.request, script[min(index, len(script) - 1)])
        return self._certain(part.request, self._token_from_kv(part))

    def _token_from_kv(self, part: Slice) -> int:
        elements = self._view.read_tokens(part.block_table, part.end).astype(np.int64).astype(np.uint64)
        per_position = (elements * self._lane_weights).sum(axis=1, dtype=np.uint64)
        positions = np.arange(part.end, dtype=np.uint64)
        folded = splitmix64(per_position ^ splitmix64(positions)).sum(dtype=np.uint64)
        return int(splitmix64(np.array([folded]))[0] % np.uint64(self._vocab_size))

    @staticmethod
    def _certain(request: GenerationRequest, token_id: int) -> Draw:
        if request.top_logprobs is None:
            return Draw(token_id)
        return Draw(token_id, 0.0, (Logprob(token_id, 0.0),) if request.top_logprobs else ())


def _tokens_until(part: Slice) -> Sequence[int]:
    """All tokens of the sequence up to the slice's end."""
    prompt = part.request.prompt
    return prompt[: part.end] if part.end <= len(prompt) else [*prompt, *part.emitted[: part.end - len(prompt)]]
