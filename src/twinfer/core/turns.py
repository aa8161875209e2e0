"""Who is next in a queue of service tiers: the first of the best rank, but now and then whoever stands there longest.

1. Within a rank it is first come, first served.
2. Whoever has stood there longest may be passed ``PASSES`` times in a row, and is next then, whatever its rank.

So of every ``PASSES + 1`` turns at least one is that of the eldest: an entry that ``n`` others stood before, when it
came or since, has its turn within ``(PASSES + 1) * (n + 1)`` turns, however many better ones keep coming. In return the
better ranks are sure of all but one of so many turns. There is no clock in this: it holds at any speed.
"""

from collections import deque
from collections.abc import Iterator
from typing import Generic, TypeVar

from twinfer.core.service import NUM_RANKS

PASSES = 8
T = TypeVar("T")


class Patience:
    """How often in a row the eldest was passed."""

    def __init__(self) -> None:
        self._passed = 0

    @property
    def is_over(self) -> bool:
        """Whether it is the eldest's turn."""
        return self._passed >= PASSES

    def turned(self, *, eldest: bool) -> None:
        """Somebody had a turn."""
        self._passed = 0 if eldest else self._passed + 1


class TurnQueue(Generic[T]):
    """A queue for each rank. Ranks are ``[0, NUM_RANKS)``, and lower ones better."""

    def __init__(self) -> None:
        self._by_rank: tuple[deque[tuple[int, T]], ...] = tuple(deque() for _ in range(NUM_RANKS))
        self._last = 0
        self._patience = Patience()

    def __len__(self) -> int:
        return sum(map(len, self._by_rank))

    def __bool__(self) -> bool:
        return any(self._by_rank)

    def __iter__(self) -> Iterator[T]:
        """The best ranks first."""
        return (item for queue in self._by_rank for _, item in queue)

    def num_of(self, rank: int) -> int:
        """How many of a rank."""
        return len(self._by_rank[rank])

    @property
    def first(self) -> T:
        """Whose turn it is; there must be somebody."""
        return self._by_rank[self._next()][0][1]

    @property
    def first_rank(self) -> int:
        """How it counts against others that wait for the same: the best rank of all, once it was passed too often."""
        return 0 if self.is_overdue else self._next()

    @property
    def is_overdue(self) -> bool:
        """Whether it is the eldest's turn."""
        return self._patience.is_over

    def append(self, item: T, rank: int) -> None:
        """Behind all of its rank."""
        self._last += 1
        self._by_rank[rank].append((self._last, item))

    def put_back(self, item: T, rank: int) -> None:
        """Before all of its rank: it had its turn, and gave way. It counts as old as the one that it stands before."""
        queue = self._by_rank[rank]
        if queue:
            queue.appendleft((queue[0][0], item))
        else:
            self.append(item, rank)

    def take(self) -> T:
        """The first has its turn."""
        rank = self._next()
        self._patience.turned(eldest=rank == self._eldest())
        return self._by_rank[rank].popleft()[1]

    def pass_all(self) -> None:
        """Somebody had a turn who did not stand here."""
        self._patience.turned(eldest=False)

    def remove(self, item: T, rank: int) -> None:
        """It leaves without a turn, wherever it stands."""
        queue = self._by_rank[rank]
        del queue[next(index for index, (_, other) in enumerate(queue) if other is item)]

    def _next(self) -> int:
        if self.is_overdue:
            return self._eldest()
        return next(rank for rank, queue in enumerate(self._by_rank) if queue)

    def _eldest(self) -> int:
        return min(
            (rank for rank, queue in enumerate(self._by_rank) if queue), key=lambda rank: self._by_rank[rank][0][0]
        )
