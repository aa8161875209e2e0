"""The last changes in what a pool's prefix cache holds, numbered, for those who follow it from afar."""

from collections import deque
from collections.abc import Iterable
from itertools import islice

from twinfer.core.block_events import BlockEvents
from twinfer.core.block_hash import BlockHash


class BlockLog:
    """Keeps the last ``max_changes``; whoever is further behind needs everything."""

    def __init__(self, max_changes: int) -> None:
        self._changes: deque[tuple[BlockHash, int]] = deque(maxlen=max_changes)
        self.next = 0

    def stored(self, block_hash: BlockHash) -> None:
        """It can be found from now on."""
        self._add(block_hash, 0)

    def gone(self, block_hash: BlockHash) -> None:
        """It cannot any more."""
        self._add(block_hash, 1)

    def since(self, number: int, resident: Iterable[BlockHash]) -> BlockEvents:
        """Changes from a number on, or ``resident``, which is everything there is now, if they are not kept."""
        first = self.next - len(self._changes)
        if not first <= number <= self.next:
            return BlockEvents(self.next, b"".join(resident), everything=True)
        found = list(islice(self._changes, number - first, None))
        return BlockEvents(number, b"".join(each for each, _ in found), bytes(flag for _, flag in found))

    def _add(self, block_hash: BlockHash, flag: int) -> None:
        self._changes.append((block_hash, flag))
        self.next += 1
