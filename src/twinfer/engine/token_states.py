"""What the KV of an emulated engine is made of: a state for every position, and hashes of it.

The state of a position mixes the weights' seed, the tenant and all tokens up to it, as a running sum of one hash per
position. Hashes are splitmix64 (Steele, Lea, Flood 2014) on wrapping 64-bit lanes.
"""

import zlib
from collections import OrderedDict
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from twinfer.core.ids import RequestId, TenantId
from twinfer.core.step import Slice

U64 = NDArray[np.uint64]
MAX_STATES = 1024
"""Sequences of which the last state is kept: more than run at a time."""
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)
_30, _27, _31 = np.uint64(30), np.uint64(27), np.uint64(31)
_PRIME = np.uint64(0x100000001B3)


def splitmix64(values: U64) -> U64:
    """A bijective scramble of each 64-bit lane."""
    mixed: U64 = values + _GOLDEN
    mixed ^= mixed >> _30
    mixed *= _MIX_1
    mixed ^= mixed >> _27
    mixed *= _MIX_2
    mixed ^= mixed >> _31
    return mixed


def salt(tenant: TenantId, seed: int = 0) -> int:
    """What a tenant adds to all of its hashes, with the weights that a seed stands for."""
    return zlib.crc32(tenant.encode(), seed)


def token_hashes(token_ids: U64, position_hashes: U64, salts: U64) -> U64:
    """What each token adds to the state of its position and of all after it."""
    return splitmix64((token_ids * _PRIME + salts) ^ position_hashes)


def token_states(token_ids: Sequence[int], tenant: TenantId, start: int = 0, before: int = 0, seed: int = 0) -> U64:
    """The state of each position: a function of whose they are and all tokens up to and including it.

    Args:
        token_ids: from position ``start`` on.
        tenant: whose they are.
        start: the first one's position.
        before: the state of the position before it.
        seed: stands for the weights.
    """
    positions = np.arange(start, start + len(token_ids), dtype=np.uint64)
    salts = np.full(1, salt(tenant, seed), np.uint64)
    hashes = token_hashes(np.asarray(token_ids, dtype=np.uint64), splitmix64(positions), salts)
    return np.cumsum(hashes, dtype=np.uint64) + np.uint64(before)


class RunningStates:
    """States of slices. Where a sequence goes on from its last one, a step costs its new positions only."""

    def __init__(self, seed: int = 0) -> None:
        self._seed = seed
        self._last: OrderedDict[RequestId, tuple[Sequence[int], int, int]] = OrderedDict()

    def of(self, part: Slice) -> U64:
        """The state of each position of a slice."""
        states = token_states(part.token_ids, part.request.tenant, part.start, self.before(part), self._seed)
        self.keep(part, part.end, int(states[-1]))
        return states

    def before(self, part: Slice) -> int:
        """The state of the position before a slice."""
        emitted, end, state = self._last.pop(part.request.request_id, (None, 0, 0))
        if emitted is part.emitted and end == part.start:
            return state
        return int(token_states(_tokens_until(part), part.request.tenant, seed=self._seed)[-1]) if part.start else 0

    def keep_all(self, parts: Sequence[Slice], steps: int, states: Sequence[int]) -> None:
        """Remember the states of sequences that took so many steps of one position each."""
        for part, state in zip(parts, states, strict=True):
            self.keep(part, part.start + steps, state)

    def keep(self, part: Slice, end: int, state: int) -> None:
        """Remember the state of the position before ``end`` in the sequence of a slice."""
        self._last[part.request.request_id] = (part.emitted, end, state)
        if len(self._last) > MAX_STATES:
            self._last.popitem(last=False)


def _tokens_until(part: Slice) -> Sequence[int]:
    """All tokens of the sequence before the slice."""
    prompt = part.request.prompt
    return prompt[: part.start] if part.start <= len(prompt) else [*prompt, *part.emitted[: part.start - len(prompt)]]
