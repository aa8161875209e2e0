"""Control streams from this worker to the sinks it passes KV to: one per sink, dialled on first use.

1. Dial, introduce ourselves, and wait for the sink's answer; a refusal ends every handoff towards it.
2. What was to be sent meanwhile goes out in order. Heartbeats name the open handoffs.
3. When the stream breaks while handoffs are open, dial again and repeat what was said; their leases run on.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from typing import Protocol

from twinfer.core.errors import TwinferError
from twinfer.core.messages import FailureKind, Heartbeat, SinkHello, SourceHello, ToSink, ToSource
from twinfer.core.sparse_log import SparseLog
from twinfer.worker.context import WorkerContext
from twinfer.worker.source_desk import SourceDesk

logger = logging.getLogger(__name__)
REDIAL_S = 0.25
MAX_COMPLAINTS = 5
"""In a period of the log: a sink that cannot be reached is dialled again several times a second."""


class HandoffStream(Protocol):
    """The source's end of a control stream."""

    def send_soon(self, message: ToSink) -> None:
        """Queue a message."""
        ...

    def __aiter__(self) -> AsyncIterator[ToSource]:
        """What the sink says; ends or raises ``WorkerLost`` with the stream."""
        ...

    async def close(self) -> None:
        """End the stream."""
        ...

    def break_off(self, error: TwinferError) -> None:
        """End the stream now; iterating it raises the error."""
        ...


class SinkClient(Protocol):
    """A connection to one sink worker."""

    def handoff_stream(self) -> HandoffStream:
        """A new control stream; what is wrong with it shows when iterating."""
        ...

    async def close(self) -> None:
        """Let go of the connection."""
        ...


Connect = Callable[[str], SinkClient]


class SinkLink:
    """One sink, as this source reaches it."""

    def __init__(
        self, address: str, client: SinkClient, context: WorkerContext, desk: SourceDesk, complain: SparseLog
    ) -> None:
        self._address = address
        self._complain = complain
        self._client = client
        self._context = context
        self._desk = desk
        self._stream: HandoffStream | None = None
        self._backlog: list[ToSink] = []
        self._ended = False
        self._task = asyncio.create_task(self._run())

    @property
    def ended(self) -> bool:
        """Whether its stream ended and nothing was open on it."""
        return self._ended

    def send(self, message: ToSink) -> None:
        """Send as soon as the stream is up."""
        if self._stream is None:
            self._backlog.append(message)
        else:
            self._stream.send_soon(message)

    async def close(self) -> None:
        """Hang up."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        again = False
        try:
            while not again or self._desk.held_for(self):
                try:
                    await self._converse(again)
                except TwinferError as error:
                    self._complain("the control stream to %s broke: %s", self._address, error)
                self._stream = None
                self._backlog.clear()
                again = True
                await asyncio.sleep(REDIAL_S)
        finally:
            self._ended = True
            await self._client.close()

    async def _converse(self, again: bool) -> None:
        stream = self._client.handoff_stream()
        beat = asyncio.create_task(self._beat(stream))
        try:
            with self._context.isolation.conversation(stream):
                stream.send_soon(SourceHello(self._context.identity))
                async for message in stream:
                    self._hear(message, stream, again)
        finally:
            beat.cancel()
            await stream.close()

    def _hear(self, message: ToSource, stream: HandoffStream, again: bool) -> None:
        if not isinstance(message, SinkHello):
            self._desk.hear(self, message)
        elif message.refusal is None:
            self._accepted(stream, again)
        else:
            self._complain("%s takes no KV from here: %s", message.identity.worker, message.refusal)
            kind = FailureKind.INCOMPATIBLE if message.incompatible else FailureKind.UNREACHABLE
            self._desk.refused(self, kind, message.refusal)

    def _accepted(self, stream: HandoffStream, again: bool) -> None:
        self._stream = stream
        backlog, self._backlog = self._backlog, []
        if again:
            self._desk.reconnected(self)
        else:
            for message in backlog:
                stream.send_soon(message)

    async def _beat(self, stream: HandoffStream) -> None:
        while True:
            await asyncio.sleep(self._context.handoff.heartbeat_s)
            if handoffs := self._desk.held_for(self):
                stream.send_soon(Heartbeat(self._context.identity.epoch, handoffs))


class SinkLinks:
    """All control streams to sinks, by address."""

    def __init__(self, connect: Connect, context: WorkerContext, desk: SourceDesk) -> None:
        self._connect = connect
        self._context = context
        self._desk = desk
        self._links: dict[str, SinkLink] = {}
        self._complain = SparseLog(logger.warning, MAX_COMPLAINTS)

    def to(self, address: str) -> SinkLink:
        """The stream to this sink, dialled if it is not up."""
        link = self._links.get(address)
        if link is None or link.ended:
            client = self._connect(address)
            link = self._links[address] = SinkLink(address, client, self._context, self._desk, self._complain)
        return link

    async def close(self) -> None:
        """Hang up all of them; they are dialled again when they are needed."""
        links, self._links = self._links, {}
        for link in links.values():
            await link.close()
