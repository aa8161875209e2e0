"""Sequences without blocks, in the order in which they are admitted: by service tier, and within one by arrival."""

from collections import deque
from collections.abc import Iterator

from twinfer.core.service import NUM_RANKS
from twinfer.engine.sequence import TokenSequence


class WaitingQueue:
    """A queue for each rank; the first is that of the lowest rank that has one."""

    def __init__(self) -> None:
        self._by_rank: tuple[deque[TokenSequence], ...] = tuple(deque() for _ in range(NUM_RANKS))

    def __len__(self) -> int:
        return sum(map(len, self._by_rank))

    def __bool__(self) -> bool:
        return any(self._by_rank)

    def __iter__(self) -> Iterator[TokenSequence]:
        return (sequence for queue in self._by_rank for sequence in queue)

    @property
    def first(self) -> TokenSequence:
        """Whose turn it is; there must be somebody."""
        return next(iter(self))

    def append(self, sequence: TokenSequence) -> None:
        """Behind all of its tier."""
        self._by_rank[sequence.rank].append(sequence)

    def put_back(self, sequence: TokenSequence) -> None:
        """Before all of its tier: it had its turn, and gave way."""
        self._by_rank[sequence.rank].appendleft(sequence)

    def remove(self, sequence: TokenSequence) -> None:
        """Wherever it stands."""
        self._by_rank[sequence.rank].remove(sequence)
