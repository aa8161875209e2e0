"""A worker's conversations: with gateways, which send requests, and with sources, which pass KV.

Each has one stream. When a gateway's ends, what it asked for is cancelled; when a source's ends, what it had not
sealed is given up.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import msgspec

from twinfer.core.errors import TransportError, TwinferError, WorkerLost
from twinfer.core.load import LoadReport
from twinfer.core.messages import (
    Become,
    Blocks,
    Done,
    Frame,
    Heartbeat,
    Hello,
    Isolate,
    Load,
    Refused,
    SinkHello,
    SourceHello,
    TellBlocks,
    ToGateway,
    ToSink,
    ToSource,
    ToWorker,
)
from twinfer.core.sparse_log import SparseLog
from twinfer.core.tally import Tally
from twinfer.core.tokens import Timings
from twinfer.engine.base import StepOutcome
from twinfer.tls.roles import name_refusal
from twinfer.worker.context import WorkerContext
from twinfer.worker.reception import Reception
from twinfer.worker.sink_desk import SourcePeer
from twinfer.worker.source_desk import Links
from twinfer.worker.transports import Sinks, Sources
from twinfer.worker.turning import Turning

logger = logging.getLogger(__name__)
LOAD_PERIOD_S = 0.25
MAX_COMPLAINTS = 5
"""In a period of the log: a source that is refused may come back several times a second."""


_FROM_THE_START = -1
"""The number of no change: everything has to be told."""


@dataclass(slots=True)
class _Followed:
    """How far a gateway follows the prefix cache: the number of the next change to tell."""

    next: int = _FROM_THE_START


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

    @property
    def names(self) -> Sequence[str]:
        """On the source's certificate; empty without TLS."""
        ...

    def send_soon(self, message: ToSource) -> None:
        """Queue a message."""
        ...

    def __aiter__(self) -> AsyncIterator[ToSink]:
        """What the source says; ends with the stream."""
        ...

    def break_off(self, error: TwinferError) -> None:
        """End the stream now; iterating it raises the error."""
        ...


class Vital(Protocol):
    """A thread without which a worker is not healthy."""

    @property
    def alive(self) -> bool:
        """Whether it runs."""
        ...


class WorkerService:
    """Answers what arrives on a worker's streams."""

    def __init__(self, context: WorkerContext, sources: Sources, sinks: Sinks, max_pulls: int) -> None:
        self._context = context
        self._sinks = sinks
        self.reception = Reception(context, sources, max_pulls)
        self._links: Links | None = None
        self._vital: tuple[Vital, ...] = ()
        self._gateways: set[GatewayStream] = set()
        self._turns: set[asyncio.Task[None]] = set()
        self.turning = Turning(context, self.reception, self._announce, self._hang_up)
        self._complain = SparseLog(logger.warning, MAX_COMPLAINTS)
        self._refused = Tally()

    def begin(self, links: Links, vital: tuple[Vital, ...]) -> None:
        """What came into being after the service: ways to other sinks, and threads it cannot live without."""
        self._links = links
        self._vital = vital

    async def on_gateway(self, stream: GatewayStream) -> None:
        """Serve one gateway until its stream ends."""
        assert self._links is not None
        stream.send_soon(Hello(self._context.identity))
        self._gateways.add(stream)
        blocks = _Followed()
        loads = asyncio.create_task(self._report_load(stream, blocks))
        try:
            async for message in stream:
                if isinstance(message, Isolate):
                    self._isolate(message, stream)
                elif isinstance(message, TellBlocks):
                    blocks.next = _FROM_THE_START
                elif isinstance(message, Become):
                    turn = asyncio.create_task(self._become(message, stream))
                    self._turns.add(turn)
                    turn.add_done_callback(self._turns.discard)
                elif not self.turning.takes_new:
                    self.reception.turn_away(message, stream)
                else:
                    self.reception.take(message, stream, self._links)
        finally:
            loads.cancel()
            self._gateways.discard(stream)
            self.reception.gateway_left(stream)

    async def on_handoff(self, stream: SourceStream) -> None:
        """Serve one source until its stream ends.

        Raises:
            WorkerLost: this worker is isolated.
        """
        with self._context.isolation.conversation(stream):
            await self._hear_source(stream)

    async def _hear_source(self, stream: SourceStream) -> None:
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
                    self.reception.sink.hear(peer, message)
        finally:
            if beat is not None:
                beat.cancel()
            if peer is not None:
                self.reception.sink.source_lost(peer)
                peer.connection.peer.close()

    def deliver(self, outcome: StepOutcome) -> None:
        """Pass on what a step brought."""
        self.reception.deliver(outcome)

    def load(self) -> LoadReport:
        """The worker's report."""
        report = self.reception.load(healthy=all(thread.alive for thread in self._vital))
        refused = sum((tally.counts() for tally in (*self._context.refused, self._refused)), Counter[str]())
        return msgspec.structs.replace(report, draining=not self.turning.takes_new, peers_refused=dict(refused))

    async def report(self) -> LoadReport:
        """The worker's report, when asked for."""
        return self.load()

    def _announce(self) -> None:
        """Tell all gateways who this is now, and whether it takes new work."""
        for stream in self._gateways:
            stream.send_soon(Hello(self._context.identity))
            stream.send_soon(Load(self.load()))

    async def _hang_up(self) -> None:
        assert self._links is not None
        await self._links.close()

    async def _become(self, message: Become, stream: GatewayStream) -> None:
        """Turn to another role, and say so when it is over."""
        try:
            await self.turning.turn(message.role)
        except WorkerLost as error:
            stream.send_soon(Refused(message.request_id, str(error)))
        else:
            stream.send_soon(Frame(done=(Done(message.request_id, Timings()),)))

    def _isolate(self, message: Isolate, stream: GatewayStream) -> None:
        """Cut this worker off, and say so when it is over."""
        if not self._context.handoff.allow_isolation:
            reason = "isolation is not allowed here: start the deployment with --set handoff.allow_isolation=true"
            stream.send_soon(Refused(message.request_id, reason))
            return
        logger.warning("isolated from all other workers for %.1f s, as asked", message.seconds)
        self._context.isolation.begin(message.seconds)
        over = Frame(done=(Done(message.request_id, Timings()),))
        asyncio.get_running_loop().call_later(message.seconds, stream.send_soon, over)

    async def _report_load(self, stream: GatewayStream, blocks: "_Followed") -> None:
        last: LoadReport | None = None
        while True:
            report = self.load()
            if report != last:
                stream.send_soon(Load(report))
                last = report
            events = self._context.engine.block_events(blocks.next)
            if events.everything or events.gone:
                stream.send_soon(Blocks(events))
                blocks.next = events.next
            await asyncio.sleep(LOAD_PERIOD_S)

    async def _meet(self, hello: SourceHello, stream: SourceStream) -> SourcePeer | None:
        """Accept or refuse a source, before any byte moves."""
        me, them = self._context.identity, hello.identity
        impostor = name_refusal(stream.names, them.worker)
        if impostor is not None:
            self._refused.count("name")
            self._complain("refused KV from %s: %s", them.worker, impostor)
            stream.send_soon(SinkHello(me, impostor))
            return None
        objection = self.reception.sink.objection(them)
        if objection is not None:
            self._complain("refused KV from %s: %s", them.worker, objection)
            stream.send_soon(SinkHello(me, objection, incompatible=True))
            return None
        try:
            connection = await asyncio.to_thread(self._sinks.connect, them)
        except TransportError as error:
            self._complain("no way to KV of %s: %s", them.worker, error)
            stream.send_soon(SinkHello(me, str(error)))
            return None
        stream.send_soon(SinkHello(me))
        return SourcePeer(them, connection, stream.send_soon)

    async def _beat(self, peer: SourcePeer, stream: SourceStream) -> None:
        while True:
            await asyncio.sleep(self._context.handoff.heartbeat_s)
            if handoffs := self.reception.sink.held_from(peer.identity):
                stream.send_soon(Heartbeat(self._context.identity.epoch, handoffs))
