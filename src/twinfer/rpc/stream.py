"""A stream of messages in both directions, the same on either side of the control plane.

1. Two tasks move bytes between the wire and two bounded boxes; a full inbox holds the peer back, through gRPC.
2. Iterating gives what came. It ends when the peer ended its side or this stream was closed, and raises
   ``WorkerLost`` or ``ProtocolError`` when the stream broke, after all that had come before.
3. ``send`` waits for room. ``send_soon`` never waits: a peer that reads too slowly loses its stream.
4. ``close`` writes what is queued and ends the call.

All of it belongs to one event loop. Other threads go through ``loop.call_soon_threadsafe(stream.send_soon, message)``.
"""

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Sequence
from typing import Generic, Protocol, TypeVar

from twinfer.core.errors import ProtocolError, TwinferError, WorkerLost
from twinfer.rpc.codec import Decoder, encode
from twinfer.rpc.outbox import Outbox

_MAX_INBOX_MESSAGES = 1024
_CLOSE_S = 1.0
"""``close`` waits that long for a peer that does not read."""

In = TypeVar("In")
Out = TypeVar("Out")

logger = logging.getLogger(__name__)


class Wire(Protocol):
    """One call's raw messages; the client's and the server's view of a gRPC stream."""

    @property
    def peer(self) -> str:
        """The other side, for messages to people."""
        ...

    async def read(self) -> bytes | None:
        """The next message; ``None`` when the peer has ended its side. Raises a ``TwinferError`` when it broke."""
        ...

    async def write(self, data: bytes) -> None:
        """Send; waits while the peer holds us back. Raises a ``TwinferError`` when the call broke."""
        ...

    async def finish(self) -> None:
        """Nothing more follows from here; returns when the peer is through too, if it needs telling."""
        ...

    def cut(self) -> None:
        """End the call now, if it has not ended."""
        ...


class MessageStream(Generic[In, Out], AsyncIterator[In]):
    """Messages of type ``In`` come, of type ``Out`` go.

    Attributes:
        names: on the certificate of whoever called; empty without TLS, and on the calling side.
    """

    def __init__(
        self, wire: Wire, decoder: Decoder[In], outbox: Outbox | None = None, names: Sequence[str] = ()
    ) -> None:
        self.names = names
        self._wire = wire
        self._decoder = decoder
        self._inbox: deque[In] = deque()
        self._outbox = Outbox() if outbox is None else outbox
        self._error: TwinferError | None = None
        self._read_ended = False
        self._closing = False
        self._arrived, self._taken, self._queued, self._room, self._broken = (asyncio.Event() for _ in range(5))
        self._reader = asyncio.create_task(self._read_all())
        self._writer = asyncio.create_task(self._write_all())

    @property
    def peer(self) -> str:
        """The other side, for messages to people."""
        return self._wire.peer

    @property
    def error(self) -> TwinferError | None:
        """Why the stream broke; ``None`` while it works, and after it ended well."""
        return self._error

    @property
    def is_over(self) -> bool:
        """Whether it was closed here, or broke."""
        return self._closing or self._error is not None

    @property
    def is_through(self) -> bool:
        """Whether nothing of it goes over the wire any more."""
        return self._reader.done() and self._writer.done()

    async def send(self, message: Out) -> None:
        """Queue a message, when there is room.

        Raises:
            WorkerLost: the peer is gone, or the stream is closed.
            ProtocolError: the stream broke for that reason.
        """
        data = encode(message)
        while not self.is_over and not self._outbox.fits(data):
            self._room.clear()
            await self._room.wait()
        if self.is_over:
            raise self._error or WorkerLost(f"the stream to {self.peer} is closed")
        self._push(data)

    def send_soon(self, message: Out) -> None:
        """Queue a message at once; without room the stream breaks, and when it is over nothing happens."""
        if self.is_over:
            return
        data = encode(message)
        if self._outbox.fits(data):
            self._push(data)
        else:
            waiting = f"{len(self._outbox)} messages of {self._outbox.num_bytes} bytes wait for it"
            self.break_off(ProtocolError(f"{self.peer} reads too slowly: {waiting}, and its stream is closed"))

    def __aiter__(self) -> "MessageStream[In, Out]":
        return self

    async def __anext__(self) -> In:
        while self._closing or not self._inbox:
            if self._error is not None and not self._closing:
                raise self._error
            if self._closing or self._read_ended:
                raise StopAsyncIteration
            self._arrived.clear()
            await self._arrived.wait()
        self._taken.set()
        return self._inbox.popleft()

    async def close(self) -> None:
        """Write what is queued, and end the call. Iteration ends. Safe to repeat."""
        self._closing = True
        self._wake_all()
        try:
            await asyncio.wait({self._writer}, timeout=_CLOSE_S)
        finally:
            self._wire.cut()
            self._reader.cancel()
            self._writer.cancel()
        await asyncio.wait({self._reader, self._writer})

    def break_off(self, error: TwinferError) -> None:
        """End the call now, for this reason, which iteration raises. Only the first counts."""
        if self.is_over:
            return
        if isinstance(error, ProtocolError):
            logger.warning("the stream with %s is closed: %s", self.peer, error)
        self._error = error
        self._broken.set()
        self._wake_all()
        self._wire.cut()
        for task in {self._reader, self._writer} - {asyncio.current_task()}:
            task.cancel()

    async def wait_broken(self) -> None:
        """Return when the stream has broken."""
        await self._broken.wait()

    def _push(self, data: bytes) -> None:
        self._outbox.push(data)
        self._queued.set()

    def _wake_all(self) -> None:
        for event in (self._arrived, self._taken, self._queued, self._room):
            event.set()

    async def _read_all(self) -> None:
        try:
            while (data := await self._wire.read()) is not None:
                message = self._decoder.decode(data)
                if not self._closing:
                    self._inbox.append(message)
                self._arrived.set()
                while len(self._inbox) >= _MAX_INBOX_MESSAGES and not self.is_over:
                    self._taken.clear()
                    await self._taken.wait()
            self._read_ended = True
            self._arrived.set()
        except TwinferError as error:
            self.break_off(error)

    async def _write_all(self) -> None:
        try:
            while self._outbox or not self._closing:
                while self._outbox:
                    await self._wire.write(self._outbox.pop())
                    self._room.set()
                if not self._closing:
                    self._queued.clear()
                    await self._queued.wait()
            await self._wire.finish()
        except TwinferError as error:
            self.break_off(error)
