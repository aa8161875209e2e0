"""Prompts that wait for room on a decode worker: in which order they get it, and until when they wait. Pure."""

from collections.abc import Iterator
from dataclasses import dataclass

from twinfer.core.config import HandoffConfig
from twinfer.core.ids import RequestId
from twinfer.core.messages import Reserve
from twinfer.core.turns import TurnQueue


@dataclass(frozen=True, slots=True)
class Waiting:
    """A reservation that was not answered yet.

    Attributes:
        until: when it has waited long enough, and is told so.
    """

    message: Reserve
    until: float

    @property
    def rank(self) -> int:
        """Of its service tier."""
        return self.message.request.tier.rank


def longest_wait_s(handoff: HandoffConfig) -> float:
    """How long a reservation waits: no longer than what is granted lasts, for whoever asked may hang."""
    return min(handoff.max_busy_s, handoff.lease_s)


class WaitingRoom:
    """Reservations in turn (``core.turns``)."""

    def __init__(self) -> None:
        self._queue: TurnQueue[Waiting] = TurnQueue()
        self._by_request: dict[RequestId, Waiting] = {}

    def __len__(self) -> int:
        return len(self._by_request)

    def __contains__(self, request_id: RequestId) -> bool:
        return request_id in self._by_request

    @property
    def requests(self) -> tuple[RequestId, ...]:
        """Who waits, as they came."""
        return tuple(self._by_request)

    @property
    def first(self) -> Waiting | None:
        """Whose turn it is."""
        return self._queue.first if self._queue else None

    def is_before(self, rank: int) -> bool:
        """Whether somebody waits here who comes before a new one of this rank."""
        return bool(self._queue) and self._queue.first_rank <= rank

    def enter(self, waiting: Waiting) -> None:
        """One more."""
        self._queue.append(waiting, waiting.rank)
        self._by_request[waiting.message.request.request_id] = waiting

    def passed(self) -> None:
        """Somebody got room who did not wait here."""
        self._queue.pass_all()

    def take(self) -> Waiting:
        """The first has its turn."""
        waiting = self._queue.take()
        del self._by_request[waiting.message.request.request_id]
        return waiting

    def leave(self, request_id: RequestId) -> None:
        """It waits no longer, if it did."""
        waiting = self._by_request.pop(request_id, None)
        if waiting is not None:
            self._queue.remove(waiting, waiting.rank)

    def overdue(self, now: float) -> Iterator[Waiting]:
        """Take out those that waited long enough."""
        for waiting in [waiting for waiting in self._queue if now >= waiting.until]:
            self.leave(waiting.message.request.request_id)
            yield waiting
