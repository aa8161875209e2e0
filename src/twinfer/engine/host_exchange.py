"""What is copied between a pool and the host tier below it between two steps: decided here, pure, and done elsewhere.

1. Sequences that were admitted get back what the host tier has of them: their own blocks are filled, of which nothing
   is attended to, nor found, before the digest of what arrived is the one that was noted when it was stored.
2. Then the coldest cached blocks are stored, so many that half of the pool can go without being lost, or more where
   the next prompt needs more.
3. All of this is a few blocks at a time, about as many as a step computes: a step waits no longer for it than that.

A sequence is in flight while its blocks are filled, so nobody frees them under the copy; a slot that is read is held,
and a block that is read is borrowed. Whoever makes the copies has the plan to itself between ``begin`` and ``finish``.
"""

from dataclasses import dataclass
from itertools import takewhile

from twinfer.core.ids import TenantId
from twinfer.engine.loop import EngineLoop
from twinfer.engine.sequence import TokenSequence
from twinfer.kv.block_pool import Borrowed
from twinfer.kv.host_tier import HostTier

SPARE_SHARE = 0.5
"""Of the pool: blocks that can go without being lost, for decoding and for KV from elsewhere, which do not wait."""


@dataclass(frozen=True, slots=True)
class Filling:
    """Slots to be copied into a sequence's blocks, pairwise, and the digests that must come of it."""

    sequence: TokenSequence
    slots: tuple[int, ...]
    blocks: tuple[int, ...]
    digests: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Storing:
    """A borrowed block to be copied into a slot; none if it needs no copy, or there is no slot for it."""

    borrowed: Borrowed
    slot: int | None


@dataclass(frozen=True, slots=True)
class CopyPlan:
    """What is to be copied between two steps."""

    fillings: tuple[Filling, ...]
    storings: tuple[Storing, ...]


class HostExchange:
    """Between the pool of a loop and its host tier.

    Args:
        max_blocks: copied between two steps at most.
    """

    def __init__(self, loop: EngineLoop, tier: HostTier, max_blocks: int) -> None:
        self._loop = loop
        self._pool = loop.pool
        self._tier = tier
        self._max_blocks = max_blocks
        self._num_spare = int(SPARE_SHARE * loop.pool.num_blocks)

    @property
    def has_work(self) -> bool:
        """Whether there is anything to copy."""
        return self._num_uncopied() > 0 or any(True for _ in self._loop.recalling())

    def begin(self, now: float) -> CopyPlan | None:
        """Choose what is copied next; ``None`` for nothing."""
        self._tier.expire(now)
        fillings: list[Filling] = []
        room = self._max_blocks
        for sequence in self._loop.recalling():
            if room and now < sequence.deadline:
                fillings.append(self._fill(sequence, room))
                room -= len(fillings[-1].slots)
        storings = [self._store(one) for one in self._pool.borrow(min(room, self._num_uncopied()))]
        return CopyPlan(tuple(fillings), tuple(storings)) if fillings or storings else None

    def finish(self, plan: CopyPlan, filled: list[list[int]], stored: list[int]) -> None:
        """Take in what was copied.

        Args:
            filled: the digests of each filling's blocks, up to the first that is wrong, or all.
            stored: the digests of the slots of all storings that have one.
        """
        for filling, digests in zip(plan.fillings, filled, strict=True):
            self._loop.recalled(filling.sequence, _num_equal(digests, filling.digests), len(filling.slots))
        digest = iter(stored)
        for storing in plan.storings:
            if storing.slot is not None:
                self._tier.fill(storing.borrowed.block_hash, next(digest))
        self._pool.give_back(storing.borrowed for storing in plan.storings)
        self._loop.host_counts["host_saved_blocks"] += len(stored)

    def _num_uncopied(self) -> int:
        return self._pool.num_uncopied(max(self._num_spare, self._loop.num_awaited))

    def _fill(self, sequence: TokenSequence, room: int) -> Filling:
        recall = sequence.recall
        assert recall is not None
        sequence.in_flight = True
        part = slice(recall.num_back, recall.num_back + room)
        slots = recall.hold.slots[part]
        first = recall.first_block + recall.num_back
        return Filling(sequence, slots, tuple(sequence.blocks[first : first + len(slots)]), recall.hold.digests[part])

    def _store(self, borrowed: Borrowed) -> Storing:
        return Storing(borrowed, self._tier.reserve(borrowed.block_hash, TenantId(borrowed.owner)))


def _num_equal(came: list[int], wanted: tuple[int, ...]) -> int:
    """Length of the beginning that is right."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(came, wanted, strict=False)))
