"""The last changes in what a worker's prefix cache holds, numbered, for those who follow it from afar.

A block may be in several tiers: it is there as long as it is in one of them.
"""

from collections import deque
from itertools import islice

from twinfer.core.block_events import BlockEvents
from twinfer.core.block_hash import BlockHash


class BlockLog:
    """Keeps the last ``max_changes``; whoever is further behind needs everything."""

    def __init__(self, max_changes: int) -> None:
        self._changes: deque[tuple[BlockHash, int]] = deque(maxlen=max_changes)
        self._num_tiers: dict[BlockHash, int] = {}
        self.next = 0

    def stored(self, block_hash: BlockHash) -> None:
        """It can be found in a tier, or in one more, from now on."""
        before = self._num_tiers.get(block_hash, 0)
        self._num_tiers[block_hash] = before + 1
        if not before:
            self._add(block_hash, 0)

    def gone(self, block_hash: BlockHash) -> None:
        """It cannot be found there any more."""
        left = self._num_tiers.pop(block_hash) - 1
        if left:
            self._num_tiers[block_hash] = left
        else:
            self._add(block_hash, 1)

    def since(self, number: int) -> BlockEvents:
        """Changes from a number on, or everything that there is now, if they are not kept."""
        first = self.next - len(self._changes)
        if not first <= number <= self.next:
            return BlockEvents(self.next, b"".join(self._num_tiers), everything=True)
        found = list(islice(self._changes, number - first, None))
        return BlockEvents(number, b"".join(each for each, _ in found), bytes(flag for _, flag in found))

    def _add(self, block_hash: BlockHash, flag: int) -> None:
        self._changes.append((block_hash, flag))
        self.next += 1
