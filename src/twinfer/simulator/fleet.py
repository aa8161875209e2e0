"""The gateway's view of its workers in virtual time: what each last reported, and what it was sent since."""

from collections.abc import Iterable
from typing import Protocol

from twinfer.core.block_events import BlockEvents
from twinfer.core.capabilities import WorkerIdentity
from twinfer.core.cost import NO_WORK, Backlog, prompt_work
from twinfer.core.ids import RequestId, WorkerId
from twinfer.core.load import BlockCounts, Counters, LoadReport
from twinfer.core.messages import ToGateway
from twinfer.core.request import GenerationRequest
from twinfer.core.snapshot import ClusterSnapshot, WorkerState
from twinfer.router.cost import CostBook
from twinfer.router.prefix_index import PrefixIndex
from twinfer.router.prompt_queue import PromptQueue
from twinfer.simulator.context import Spoken
from twinfer.simulator.prompt import SpanHasher

PARTED_S = 10.0
"""How long a gateway keeps two workers apart that did not hear each other."""


class Waiting(Protocol):
    """Whoever waits for a worker's answers to one request."""

    def hear(self, worker: WorkerId, message: ToGateway) -> None:
        """A message about the request."""
        ...

    def hear_tokens(self, worker: WorkerId, spoken: Spoken, *, done: bool) -> None:
        """Tokens of the request."""
        ...

    def lost(self, worker: WorkerId) -> None:
        """The worker is gone."""
        ...


class Link:
    """One worker, as the gateway reaches it."""

    def __init__(self, identity: WorkerIdentity) -> None:
        self.identity = identity
        self.alive = True
        self.listeners: dict[RequestId, tuple[Waiting, int]] = {}
        """By wire id, with the prompt's length."""
        blocks = identity.capabilities.num_blocks
        self._load = LoadReport(BlockCounts(blocks, blocks, 0, 0), Counters())
        self.answering: set[RequestId] = set()
        self._expected: dict[RequestId, int] = {}
        self._in_flight_tokens = 0
        self._awaited = NO_WORK
        self.queue = PromptQueue()

    def state(self, book: CostBook, now: float) -> WorkerState:
        """What a router may know of it."""
        worker, load = self.identity.worker, self._load
        ahead = tuple([self._awaited + work for work in self.queue.before(now)])
        return WorkerState(
            self.identity,
            load,
            len(self.listeners) + len(self._expected),
            self._in_flight_tokens,
            len(self.answering),
            self._awaited + self.queue.unreported,
            ahead[-1],
            ahead,
            book.cost(worker, load, now),
            book.prefill_share(worker, now),
            book.links(worker, load, now),
        )

    @property
    def takes_new(self) -> bool:
        """Whether it is there, and not about to change its role."""
        return self.alive and not self._load.draining

    def reported(self, load: LoadReport, now: float) -> None:
        """It says how it is."""
        self._load = load
        self.queue.reported(load, now)

    def expect(self, request_id: RequestId, num_tokens: int) -> None:
        """It will be sent a prompt as soon as a decode worker has room."""
        self._expected[request_id] = num_tokens
        self._in_flight_tokens += num_tokens
        self._awaited += prompt_work(0, num_tokens)

    def expect_no_more(self, request_id: RequestId) -> None:
        """It is sent now, or will not be."""
        num_tokens = self._expected.pop(request_id, 0)
        self._in_flight_tokens -= num_tokens
        work = prompt_work(0, num_tokens)
        self._awaited = Backlog(self._awaited.tokens - work.tokens, self._awaited.pairs - work.pairs)

    def await_request(self, request_id: RequestId, listener: Waiting, num_tokens: int) -> None:
        """From now on its answers to a request are waited for."""
        self.forget(request_id)
        self.listeners[request_id] = listener, num_tokens
        self._in_flight_tokens += num_tokens

    def forget(self, request_id: RequestId) -> Waiting | None:
        """Nobody waits any more; returns who did."""
        entry = self.listeners.pop(request_id, None)
        if entry is None:
            return None
        self._in_flight_tokens -= entry[1]
        self.answering.discard(request_id)
        return entry[0]


class Fleet:
    """All workers, in the order of the configuration."""

    def __init__(self, identities: Iterable[WorkerIdentity], key: bytes) -> None:
        self.links = {identity.worker: Link(identity) for identity in identities}
        self._mismatched: set[tuple[WorkerId, WorkerId]] = set()
        self._parted: dict[tuple[WorkerId, WorkerId], float] = {}
        self.book = CostBook()
        self._index = PrefixIndex(key, SpanHasher)
        for link in self.links.values():
            self._index.met(link.identity)

    def snapshot(self, now: float) -> ClusterSnapshot:
        """Those that can be used now."""
        states = tuple([link.state(self.book, now) for link in self.links.values() if link.takes_new])
        parted = frozenset(pair for pair, until in self._parted.items() if now < until)
        return ClusterSnapshot(states, frozenset(self._mismatched), parted, self.book.answers)

    def reported(self, worker: WorkerId, load: LoadReport, now: float) -> None:
        """A worker says how it is."""
        self.links[worker].reported(load, now)
        self.book.reported(worker, load, now)

    def blocks(self, worker: WorkerId, events: BlockEvents) -> None:
        """A worker says what is in its prefix cache; here nothing it says is lost."""
        self._index.apply(worker, events)

    def hits(self, request: GenerationRequest) -> dict[WorkerId, int]:
        """Tokens at a prompt's beginning whose KV a worker has."""
        return self._index.hits(request)

    def mark_mismatch(self, source: WorkerId, sink: WorkerId) -> None:
        """These two cannot pass KV."""
        self._mismatched.add((source, sink))

    def mark_parted(self, source: WorkerId, sink: WorkerId, now: float) -> None:
        """These two did not hear each other."""
        self._parted[source, sink] = now + PARTED_S

    def missing(self) -> bool:
        """Whether a worker of the configuration is not there, or changes its role."""
        return not all(link.takes_new for link in self.links.values())

    def lost(self, worker: WorkerId) -> None:
        """A worker's stream ended."""
        link = self.links[worker]
        link.alive = False
        self.book.forget(worker)
        self._index.lost(worker)
        for request_id, (listener, _) in list(link.listeners.items()):
            link.forget(request_id)
            listener.lost(worker)

    def turned(self, identity: WorkerIdentity) -> None:
        """A worker has another role, and what is cached there still."""
        self.links[identity.worker].identity = identity
        self._index.met(identity)

    def met(self, identity: WorkerIdentity) -> None:
        """A worker is there again, as another incarnation."""
        self.links[identity.worker] = Link(identity)
        self._index.met(identity)
