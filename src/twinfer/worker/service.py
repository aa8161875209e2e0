"""A worker's conversations: with gateways, which send requests, and with sources, which pass KV.

Every gateway has one stream. All tokens of a step that concern it leave in one frame. When its stream ends, nobody is
left to read its answers, so whatever it asked for is cancelled.
"""

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import Protocol

import msgspec

from twinfer.core.errors import CapacityError, InvalidRequest, TransportError
from twinfer.core.ids import RequestId
from twinfer.core.load import Counters, LoadReport
from twinfer.core.messages import (
    Busy,
    Cancel,
    Done,
    Failed,
    Frame,
    Generate,
    Heartbeat,
    Hello,
    Load,
    Prefill,
    Refused,
    Reserve,
    SinkHello,
    SourceHello,
    ToGateway,
    ToSink,
    ToSource,
    ToWorker,
)
from twinfer.core.tokens import Token
from twinfer.engine.base import StepOutcome
from twinfer.worker.compatibility import refusal
from twinfer.worker.context import WorkerContext
from twinfer.worker.sink_desk import SinkDesk, SourcePeer
from twinfer.worker.source_desk import BUSY_RETRY_S, Links, SourceDesk
from twinfer.worker.transports import Sinks, Sources

logger = logging.getLogger(__name__)
LOAD_PERIOD_S = 0.25


class GatewayStream(Protocol):
    """The worker's end of a gateway's stream."""

    def send_soon(self, message: ToGateway) -> None:
        """Queue a message."""
        ...

    def __aiter__(self) -> AsyncIterator[ToWorker]:
        """What the gateway asks; ends with the stream."""
        ...


class SourceStream(Protocol):
    """The sink's end of a source's control stream."""

    def send_soon(self, message: ToSource) -> None:
        """Queue a message."""
        ...

    def __aiter__(self) -> AsyncIterator[ToSink]:
        """What the source says; ends with the stream."""
        ...


class Vital(Protocol):
    """A thread without which a worker is not healthy."""

    @property
    def alive(self) -> bool:
        """Whether it runs."""
        ...


class Sessions:
    """Which gateway asked for which request: the worker's outbox."""

    def __init__(self) -> None:
        self._by_request: dict[RequestId, GatewayStream] = {}

    def open(self, request_id: RequestId, stream: GatewayStream) -> None:
        """Answers go to this stream."""
        self._by_request[request_id] = stream

    def tell(self, request_id: RequestId, message: ToGateway) -> None:
        """Send to whoever asked; a terminal message also ends the request's session."""
        terminal = isinstance(message, Failed | Refused | Busy)
        stream = self._by_request.pop(request_id, None) if terminal else self._by_request.get(request_id)
        if stream is not None:
            stream.send_soon(message)

    def tell_step(self, tokens: tuple[Token, ...], done: tuple[Done, ...]) -> None:
        """One frame per gateway concerned."""
        frames: dict[int, tuple[GatewayStream, list[Token], list[Done]]] = {}
        for token in tokens:
            if stream := self._by_request.get(token.request_id):
                frames.setdefault(id(stream), (stream, [], []))[1].append(token)
        for item in done:
            if stream := self._by_request.pop(item.request_id, None):
                frames.setdefault(id(stream), (stream, [], []))[2].append(item)
        for stream, its_tokens, its_done in frames.values():
            stream.send_soon(Frame(tuple(its_tokens), tuple(its_done)))

    def close(self, request_id: RequestId) -> None:
        """Nobody waits for it any more."""
        self._by_request.pop(request_id, None)

    def of(self, stream: GatewayStream) -> list[RequestId]:
        """Requests whose answers go to this stream."""
        return [request_id for request_id, owner in self._by_request.items() if owner is stream]


class WorkerService:
    """Answers what arrives on a worker's streams."""

    def __init__(self, context: WorkerContext, sources: Sources, sinks: Sinks, max_pulls: int) -> None:
        self._context = context
        self._sinks = sinks
        self._sessions = Sessions()
        self.sink = SinkDesk(context, self._sessions, max_pulls)
        self.source = SourceDesk(context, self._sessions, sources)
        self._links: Links | None = None
        self._vital: tuple[Vital, ...] = ()

    def begin(self, links: Links, vital: tuple["Vital", ...]) -> None:
        """What came into being after the service: ways to other sinks, and threads it cannot live without."""
        self._links = links
        self._vital = vital

    async def on_gateway(self, stream: GatewayStream) -> None:
        """Serve one gateway until its stream ends."""
        stream.send_soon(Hello(self._context.identity))
        loads = asyncio.create_task(self._report_load(stream))
        try:
            async for message in stream:
                self._dispatch(message, stream)
        finally:
            loads.cancel()
            for request_id in self._sessions.of(stream):
                self._cancel(request_id)

    async def on_handoff(self, stream: SourceStream) -> None:
        """Serve one source until its stream ends."""
        peer: SourcePeer | None = None
        beat: asyncio.Task[None] | None = None
        try:
            async for message in stream:
                if isinstance(message, SourceHello):
                    peer = await self._meet(message, stream)
                    if peer is None:
                        return
                    beat = asyncio.create_task(self._beat(peer, stream))
                elif peer is not None:
                    self.sink.hear(peer, message)
        finally:
            if beat is not None:
                beat.cancel()
            if peer is not None:
                self.sink.source_lost(peer)
                peer.connection.peer.close()

    def deliver(self, outcome: StepOutcome) -> None:
        """Pass on what a step brought."""
        self.source.computed(outcome)
        done = tuple(Done(request_id, self.sink.complete(request_id, times)) for request_id, times in outcome.finished)
        self._sessions.tell_step(outcome.tokens, done)
        for failure in outcome.failed:
            self.sink.forget(failure.request_id)
            self._sessions.tell(failure.request_id, Failed(failure.request_id, failure.kind, failure.reason))

    def load(self) -> LoadReport:
        """The worker's report: the engine's and both desks'."""
        report = self._context.engine.load()
        counts = msgspec.structs.asdict(report.counters)
        handoffs: dict[str, int] = {}
        oldest_s = 0.0
        for states, age_s, desk_counts in (self.sink.describe(), self.source.describe()):
            handoffs |= states
            oldest_s = max(oldest_s, age_s)
            for name, value in msgspec.structs.asdict(desk_counts).items():
                counts[name] += value
        return msgspec.structs.replace(
            report,
            counters=Counters(**counts),
            handoffs=handoffs,
            oldest_held_s=oldest_s,
            healthy=all(thread.alive for thread in self._vital),
        )

    async def report(self) -> LoadReport:
        """The worker's report, when asked for."""
        return self.load()

    def _dispatch(self, message: ToWorker, stream: GatewayStream) -> None:
        if isinstance(message, Cancel):
            self._cancel(message.request_id)
            return
        request_id = message.request.request_id
        self._sessions.open(request_id, stream)
        if isinstance(message, Reserve):
            self._sessions.tell(request_id, self.sink.reserve(message))
        elif isinstance(message, Prefill):
            assert self._links is not None
            answer = self.source.prefill(message, self._links)
            if answer is not None:
                self._sessions.tell(request_id, answer)
        else:
            self._generate(message)

    def _generate(self, message: Generate) -> None:
        request = message.request
        try:
            self._context.engine.submit(request, message.emitted)
        except InvalidRequest as error:
            self._sessions.tell(request.request_id, Refused(request.request_id, str(error)))
        except CapacityError:
            self._sessions.tell(request.request_id, Busy(request.request_id, BUSY_RETRY_S))
        else:
            self._context.wake()

    def _cancel(self, request_id: RequestId) -> None:
        self._sessions.close(request_id)
        self.sink.cancel(request_id)
        self.source.cancel(request_id)
        self._context.engine.cancel(request_id)
        self.sink.forget(request_id)
        self._context.wake()

    async def _report_load(self, stream: GatewayStream) -> None:
        last: LoadReport | None = None
        while True:
            report = self.load()
            if report != last:
                stream.send_soon(Load(report))
                last = report
            await asyncio.sleep(LOAD_PERIOD_S)

    async def _meet(self, hello: SourceHello, stream: SourceStream) -> SourcePeer | None:
        """Accept or refuse a source, before any byte moves."""
        me, them = self._context.identity, hello.identity
        objection = refusal(them.capabilities, me.capabilities, self._context.accept)
        if objection is None:
            try:
                connection = await asyncio.to_thread(self._sinks.connect, them)
            except TransportError as error:
                objection = str(error)
            else:
                stream.send_soon(SinkHello(me))
                return SourcePeer(them, connection, stream.send_soon)
        logger.warning("refused KV from %s: %s", them.worker, objection)
        stream.send_soon(SinkHello(me, objection))
        return None

    async def _beat(self, peer: SourcePeer, stream: SourceStream) -> None:
        while True:
            await asyncio.sleep(self._context.handoff.heartbeat_s)
            if handoffs := self.sink.held_from(peer.identity):
                stream.send_soon(Heartbeat(self._context.identity.epoch, handoffs))
