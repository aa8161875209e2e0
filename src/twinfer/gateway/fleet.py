"""The gateway's connections to its workers: one stream each, redialled for as long as the gateway lives.

A worker that comes back has a new epoch: to everything that was under way on it, it was lost. A bug ends the request
that ran into it, or the stream, which is redialled; no request is left waiting for a worker that nobody listens to.
"""

import asyncio
import logging
import math
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Mapping
from functools import partial
from operator import add
from typing import Protocol

from twinfer.core.block_events import BlockEvents
from twinfer.core.capabilities import WorkerIdentity
from twinfer.core.clock import Clock, MonotonicClock
from twinfer.core.cost import Ahead, Backlog, prompt_work
from twinfer.core.errors import ProtocolError, TwinferError
from twinfer.core.ids import Epoch, ModelId, RequestId, WorkerId
from twinfer.core.load import LoadReport
from twinfer.core.messages import Blocks, Busy, Failed, Frame, Hello, Load, Refused, TellBlocks, ToGateway, ToWorker
from twinfer.core.request import GenerationRequest
from twinfer.core.snapshot import ClusterSnapshot, WorkerState
from twinfer.core.tally import Tally
from twinfer.core.tokens import Timings, Token
from twinfer.gateway.errors import InternalError
from twinfer.router.cost import CostBook
from twinfer.router.prefix_index import PrefixIndex
from twinfer.router.prompt_queue import PromptQueue

logger = logging.getLogger(__name__)
REDIAL_S = 0.2
REPORT_TIMEOUT_S = 1.0
PATIENT_DIALS = 25
"""Failures in a row, five seconds or more, after which it is said why a worker is not there; what refuses us, or is
another one, will not get better by itself, and is said at once."""


class WorkerStream(Protocol):
    """The gateway's end of a stream to a worker."""

    @property
    def is_over(self) -> bool:
        """Whether it broke, though iterating may not have said so yet."""
        ...

    def send_soon(self, message: ToWorker) -> None:
        """Queue a message."""
        ...

    def __aiter__(self) -> AsyncIterator[ToGateway]:
        """What the worker says; ends or raises ``WorkerLost`` with the stream."""
        ...

    async def close(self) -> None:
        """End the stream."""
        ...


class WorkerConnection(Protocol):
    """A connection to one worker process."""

    def gateway_stream(self) -> WorkerStream:
        """A new stream; what is wrong with it shows when iterating."""
        ...

    async def report(self, timeout_s: float) -> LoadReport:
        """Ask for a fresh report.

        Raises:
            WorkerLost: it cannot be reached in time.
        """
        ...

    async def close(self) -> None:
        """Let go of it."""
        ...


Dial = Callable[[str], WorkerConnection]


class Watcher(Protocol):
    """Whoever keeps account of all workers."""

    def reported(self, worker: WorkerId, load: LoadReport) -> None:
        """A worker says how it is."""
        ...

    def blocks(self, identity: WorkerIdentity, events: BlockEvents) -> bool:
        """It says what is in its prefix cache; false when it has to say everything."""
        ...

    def refused(self, worker: WorkerId) -> None:
        """Another one answered in its place, and is not spoken to."""
        ...


class Listener(Protocol):
    """Whoever waits for a worker's answers to one request."""

    def hear(self, worker: WorkerId, message: ToGateway) -> None:
        """A message about the request, frames excepted."""
        ...

    def hear_tokens(self, worker: WorkerId, tokens: tuple[Token, ...], timings: Timings | None) -> None:
        """The request's part of a frame; ``timings`` once the worker is done with it."""
        ...

    def lost(self, worker: WorkerId) -> None:
        """The worker is gone, or another incarnation."""
        ...

    def fail(self, error: TwinferError) -> None:
        """It could not take in what it was told: that was the last."""
        ...


class WorkerLink:
    """One worker, as this gateway reaches it; what it says of itself is passed on to ``watcher``."""

    def __init__(
        self, worker: WorkerId, address: str, connection: WorkerConnection, watcher: Watcher, clock: Clock
    ) -> None:
        self._worker = worker
        self.address = address
        self._clock = clock
        self._watcher = watcher
        self.identity: WorkerIdentity | None = None
        self.load: LoadReport | None = None
        self.listeners: dict[RequestId, tuple[Listener, int]] = {}
        """By wire id, with the prompt's length."""
        self.answering: set[RequestId] = set()
        """Those of them whose answer it generates, or will; others may be left in it for a while."""
        self.expected: dict[RequestId, tuple[int, int]] = {}
        """Prompts, by wire id, that it will be sent as soon as a decode worker has room: their ranks and lengths."""
        self.queue = PromptQueue()
        """Prompts that it was sent and has not computed."""
        self._connection = connection
        self._stream: WorkerStream | None = None
        self._failed_dials = 0
        self._task = asyncio.create_task(self._run())

    @property
    def alive(self) -> bool:
        """Whether it can be sent to."""
        present = self._stream is not None and not self._stream.is_over
        return present and self.identity is not None and self.load is not None

    def is_still(self, epoch: Epoch) -> bool:
        """Whether this start of the worker can be sent to."""
        return self.alive and self.identity is not None and self.identity.epoch == epoch

    def state(self, book: CostBook, now: float) -> WorkerState | None:
        """What a router may know of it; ``None`` while it is not there."""
        if not self.alive or self.identity is None or self.load is None:
            return None
        if not self.load.healthy or self.load.draining:
            return None
        in_flight_tokens = sum(num_tokens for _, num_tokens in (*self.listeners.values(), *self.expected.values()))
        in_flight = len(self.listeners) + len(self.expected)
        worker, load = self.identity.worker, self.load
        self.answering &= self.listeners.keys()
        awaited = Ahead()
        for rank, num_tokens in self.expected.values():
            awaited.add(prompt_work(0, num_tokens), rank)
        ahead = tuple(map(add, awaited.before, self.queue.before(now)))
        return WorkerState(
            self.identity,
            load,
            in_flight,
            in_flight_tokens,
            len(self.answering),
            awaited.before[-1] + self.queue.unreported,
            ahead[-1],
            ahead,
            book.cost(worker, load, now),
            book.prefill_share(worker, now),
            book.links(worker, load, now),
        )

    def send(self, message: ToWorker) -> None:
        """Send, if it is there."""
        if self._stream is not None:
            self._stream.send_soon(message)

    def sent(self, work: Backlog, rank: int) -> None:
        """It is sent a prompt of this rank to compute."""
        self.queue.sent(work, rank, self._clock.now())

    async def fresh_load(self) -> LoadReport | None:
        """Its report of this moment, or ``None``."""
        if not self.alive:
            return None
        try:
            return await self._connection.report(REPORT_TIMEOUT_S)
        except TwinferError:
            return None

    async def close(self) -> None:
        """Hang up."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        await self._connection.close()

    async def _run(self) -> None:
        while True:
            try:
                await self._listen()
            except TwinferError as error:
                self._failed_dials += 1
                said_at = 1 if isinstance(error, ProtocolError) else PATIENT_DIALS
                level = logging.WARNING if self._failed_dials == said_at else logging.DEBUG
                logger.log(level, "still no worker at %s: %s", self.address, error)
            except Exception:  # the outermost loop of a link: a bug must not take the worker away for good
                logger.exception("a bug in the gateway broke the stream to %s, which is dialled again", self.address)
            await asyncio.sleep(REDIAL_S)

    async def _listen(self) -> None:
        """Be connected once, until that ends."""
        self._stream = stream = self._connection.gateway_stream()
        try:
            async for message in stream:
                self._hear(message)
        finally:
            self._lose()
            await stream.close()

    def _hear(self, message: ToGateway) -> None:
        if isinstance(message, Hello):
            self._check_name(message.identity.worker)
            self.identity = message.identity
            self._failed_dials = 0
        elif isinstance(message, Load):
            self.load = message.report
            self.queue.reported(message.report, self._clock.now())
            if self.identity is not None:
                self._watcher.reported(self.identity.worker, message.report)
        elif isinstance(message, Blocks):
            if self.identity is not None and not self._watcher.blocks(self.identity, message.events):
                self.send(TellBlocks())
        elif isinstance(message, Frame):
            self._hear_frame(message)
        elif self.identity is not None:
            terminal = isinstance(message, Busy | Refused | Failed)
            entry = (self.listeners.pop if terminal else self.listeners.get)(message.request_id, None)
            if entry is not None:
                self._tell(entry[0], partial(entry[0].hear, self._worker, message))

    def _check_name(self, worker: WorkerId) -> None:
        """See that it is the one that was dialled: its address is all that its certificate proves to a gateway."""
        if worker != self._worker:
            self._watcher.refused(self._worker)
            raise ProtocolError(f"it says that it is {worker}, and {self._worker} is expected there: check its --index")

    def _hear_frame(self, frame: Frame) -> None:
        tokens: dict[RequestId, list[Token]] = defaultdict(list)
        for token in frame.tokens:
            tokens[token.request_id].append(token)
        done = {item.request_id: item.timings for item in frame.done}
        for request_id in {**tokens, **done}:
            entry = self.listeners.pop(request_id, None) if request_id in done else self.listeners.get(request_id)
            if entry is not None:
                news = tuple(tokens[request_id]), done.get(request_id)
                self._tell(entry[0], partial(entry[0].hear_tokens, self._worker, *news))

    def _lose(self) -> None:
        self._stream = None
        self.load = None
        if self.listeners:
            logger.warning("lost worker %s with %d requests on it", self._worker, len(self.listeners))
        listeners, self.listeners = self.listeners, {}
        for listener, _ in listeners.values():
            self._tell(listener, partial(listener.lost, self._worker))

    def _tell(self, listener: Listener, tell: Callable[[], None]) -> None:
        """Tell a listener something; where a bug keeps it from taking that in, others hear on."""
        try:
            tell()
        except Exception:  # the outermost loop of one request: others must not pay for its bug
            logger.exception("a bug in the gateway ended a request on %s", self._worker)
            listener.fail(InternalError("A bug in the gateway ended this request; the gateway's log says more."))


class PairMarks:
    """Pairs of workers with something between them, each for a time and as long as neither is another incarnation."""

    def __init__(self) -> None:
        self._marks: dict[tuple[WorkerId, WorkerId], tuple[Epoch, Epoch, float]] = {}

    def set(self, source: WorkerIdentity, sink: WorkerIdentity, until: float = math.inf) -> None:
        """Mark two."""
        self._marks[source.worker, sink.worker] = source.epoch, sink.epoch, until

    def among(self, epochs: Mapping[WorkerId, Epoch], now: float) -> frozenset[tuple[WorkerId, WorkerId]]:
        """Marked pairs of the workers that are there."""
        return frozenset(
            (source, sink)
            for (source, sink), (ours, theirs, until) in self._marks.items()
            if now < until and (ours, theirs) == (epochs.get(source), epochs.get(sink))
        )


class Fleet:
    """All workers of the configuration.

    Args:
        addresses: their control planes, by name.
        dial: connects to one.
        parted_s: how long two workers that did not hear each other are kept apart.
        clock: tells when that is over.
        index: what their prefix caches hold.
    """

    def __init__(
        self,
        addresses: Mapping[WorkerId, str],
        dial: Dial,
        parted_s: float = 10.0,
        clock: Clock | None = None,
        index: PrefixIndex | None = None,
    ) -> None:
        self._index = index
        self._dial = dial
        self._forgotten: set[WorkerId] = set()
        self._clock = clock or MonotonicClock()
        self.book = CostBook()
        self.impostors = Tally()
        """By the worker in whose place they answered."""
        self._links = {
            worker: WorkerLink(worker, address, dial(address), self, self._clock)
            for worker, address in addresses.items()
        }
        self._parted_s = parted_s
        self._mismatched, self._parted = PairMarks(), PairMarks()

    def snapshot(self) -> ClusterSnapshot:
        """Those that can be used now."""
        now = self._clock.now()
        found = (link.state(self.book, now) for link in self._links.values())
        states = tuple(state for state in found if state is not None)
        epochs = {state.identity.worker: state.identity.epoch for state in states}
        mismatched, parted = self._mismatched.among(epochs, now), self._parted.among(epochs, now)
        return ClusterSnapshot(states, mismatched, parted, self.book.answers)

    def mark_mismatch(self, source: WorkerId, sink: WorkerId) -> None:
        """These two cannot pass KV."""
        ours, theirs = self._links[source].identity, self._links[sink].identity
        if ours is not None and theirs is not None:
            logger.warning("%s cannot pass KV to %s: they are not paired again", source, sink)
            self._mismatched.set(ours, theirs)

    def mark_parted(self, source: WorkerId, sink: WorkerId) -> None:
        """These two did not hear each other: others are better for a while."""
        ours, theirs = self._links[source].identity, self._links[sink].identity
        if ours is not None and theirs is not None:
            self._parted.set(ours, theirs, self._clock.now() + self._parted_s)

    def join(self, worker: WorkerId, address: str) -> None:
        """One more, new or at another place than before; one that was there before must have been forgotten."""
        self._forgotten.discard(worker)
        self._links[worker] = WorkerLink(worker, address, self._dial(address), self, self._clock)

    async def forget(self, worker: WorkerId) -> bool:
        """Dial no more one that has left; false while it is still there, since it may be draining.

        What began on it still finds its link, and that it is lost.
        """
        link = self._links[worker]
        if link.alive:
            return False
        self._forgotten.add(worker)
        await link.close()
        return True

    def link(self, worker: WorkerId) -> WorkerLink:
        """A worker by name."""
        return self._links[worker]

    def block_bytes(self, worker: WorkerId) -> int:
        """Size of a KV block of a worker, as it counts; 0 for one that was never met."""
        identity = self._links[worker].identity
        return 0 if identity is None else identity.capabilities.layout.counted_block_bytes

    def has_met(self, model: ModelId) -> bool:
        """Whether a worker that can answer for the model has been there since this gateway started."""
        met = (link.identity for link in self._links.values() if link.identity is not None)
        return any(identity.role.decodes and identity.capabilities.model == model for identity in met)

    def awaited(self) -> bool:
        """Whether some worker is not there, or changes its role: it may come."""
        return any(not link.alive or (link.load is not None and link.load.draining) for _, link in self._known())

    def missing(self) -> list[WorkerId]:
        """Those that should be there and are not."""
        return [worker for worker, link in self._known() if not link.alive]

    def present(self) -> tuple[WorkerId, ...]:
        """Those that are reached now."""
        return tuple(worker for worker, link in self._known() if link.alive)

    def _known(self) -> list[tuple[WorkerId, WorkerLink]]:
        return [(worker, link) for worker, link in self._links.items() if worker not in self._forgotten]

    async def reports(self) -> list[tuple[WorkerIdentity, LoadReport]]:
        """Fresh reports of all that answer."""
        links = [link for link in self._links.values() if link.identity is not None]
        loads = await asyncio.gather(*(link.fresh_load() for link in links))
        return [(link.identity, load) for link, load in zip(links, loads, strict=True) if link.identity and load]

    def hits(self, request: GenerationRequest) -> dict[WorkerId, int]:
        """Tokens at a prompt's beginning whose KV a worker has."""
        return {} if self._index is None else self._index.hits(request)

    def reported(self, worker: WorkerId, load: LoadReport) -> None:
        """A worker says how it is."""
        self.book.reported(worker, load, self._clock.now())

    def blocks(self, identity: WorkerIdentity, events: BlockEvents) -> bool:
        """A worker says what is in its prefix cache."""
        if self._index is None:
            return True
        self._index.met(identity)
        return self._index.apply(identity.worker, events)

    def refused(self, worker: WorkerId) -> None:
        """Another one answered in its place."""
        self.impostors.count(worker)

    async def close(self) -> None:
        """Hang up all."""
        await asyncio.gather(*(link.close() for link in self._links.values()))
