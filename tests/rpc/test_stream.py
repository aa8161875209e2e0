"""The stream on a wire made of queues: bounds, order and ends."""

import asyncio
import logging

import pytest

from tests.rpc.handlers import busy, cancel
from twinfer.core.errors import ProtocolError, WorkerLost
from twinfer.core.messages import ToGateway, ToWorker
from twinfer.rpc.codec import encode, to_gateway
from twinfer.rpc.outbox import Outbox
from twinfer.rpc.stream import MessageStream


class QueueWire:
    """Reads from one queue, writes to another when let."""

    peer = "the other side"

    def __init__(self) -> None:
        self.incoming: asyncio.Queue[bytes | WorkerLost | None] = asyncio.Queue()
        self.written: list[bytes] = []
        self.may_write = asyncio.Event()
        self.is_cut = False
        self.finished = False

    async def read(self) -> bytes | None:
        data = await self.incoming.get()
        if isinstance(data, WorkerLost):
            raise data
        return data

    async def write(self, data: bytes) -> None:
        await self.may_write.wait()
        self.written.append(data)

    async def finish(self) -> None:
        self.finished = True

    def cut(self) -> None:
        self.is_cut = True


def make(wire: QueueWire, max_messages: int = 3) -> MessageStream[ToGateway, ToWorker]:
    """A gateway's stream with a small outbox."""
    return MessageStream(wire, to_gateway, Outbox(max_messages))


async def test_send_soon_never_waits_and_breaks_when_full(caplog: pytest.LogCaptureFixture):
    """A peer that does not read costs its own stream, with a logged reason, and no memory beyond the bound."""
    wire = QueueWire()
    stream = make(wire)
    for number in range(100):
        stream.send_soon(cancel(str(number)))
    assert wire.is_cut
    assert stream.is_over
    with caplog.at_level(logging.WARNING), pytest.raises(ProtocolError, match="reads too slowly: 3 messages"):
        await anext(stream)
    with pytest.raises(ProtocolError, match="reads too slowly"):
        await stream.send(cancel("x"))
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    await stream.close()


async def test_send_waits_for_room():
    """With a full outbox it goes on when the peer reads, and ends when the stream does."""
    wire = QueueWire()
    stream = make(wire, 1)
    sends = [asyncio.create_task(stream.send(cancel(str(number)))) for number in range(4)]
    await asyncio.sleep(0)
    assert not all(task.done() for task in sends)
    wire.may_write.set()
    await asyncio.gather(*sends)
    wire.may_write.clear()
    blocked = [asyncio.create_task(stream.send(cancel("late"))) for _ in range(4)]
    wire.incoming.put_nowait(WorkerLost("it is gone"))
    with pytest.raises(WorkerLost, match="it is gone"):
        await asyncio.gather(*blocked)
    await asyncio.wait(blocked)
    await stream.close()
    assert [encode(cancel(str(number))) for number in range(4)] == wire.written


async def test_close_flushes_then_finishes():
    """Queued messages are written before the end is told, and iteration stops."""
    wire = QueueWire()
    wire.may_write.set()
    stream = make(wire)
    stream.send_soon(cancel("last"))
    await stream.close()
    await stream.close()
    assert [encode(cancel("last"))] == wire.written
    assert wire.finished
    assert [message async for message in stream] == []
    assert stream.error is None


async def test_close_does_not_wait_for_ever():
    """A peer that never reads cannot hold up a close."""
    wire = QueueWire()
    stream = make(wire)
    stream.send_soon(cancel("never read"))
    await stream.close()
    assert wire.is_cut
    assert not wire.finished


async def test_what_came_before_the_loss_is_delivered():
    """Messages are not lost with the peer that sent them; the loss comes after them, each time one asks."""
    wire = QueueWire()
    stream = make(wire)
    for data in (encode(busy("a")), encode(busy("b")), WorkerLost("it is gone")):
        wire.incoming.put_nowait(data)
    while stream.error is None:
        await asyncio.sleep(0)
    assert [busy("a"), busy("b")] == [await anext(stream), await anext(stream)]
    for _ in range(2):
        with pytest.raises(WorkerLost, match="it is gone"):
            await anext(stream)
    await stream.close()


async def test_a_full_inbox_holds_the_peer_back():
    """Nobody reads: at most 1024 messages are taken off the wire; all arrive when somebody does."""
    wire = QueueWire()
    stream = make(wire)
    for number in range(3000):
        wire.incoming.put_nowait(encode(busy(str(number))))
    wire.incoming.put_nowait(None)
    for _ in range(100):
        await asyncio.sleep(0)
    assert wire.incoming.qsize() == 3001 - 1024
    assert [busy(str(number)) for number in range(3000)] == [message async for message in stream]
    await stream.close()


def test_an_outbox_counts_bytes_and_messages():
    """Both bounds hold; an empty one takes anything, so that no message is too large to send."""
    outbox = Outbox(max_messages=2, max_bytes=10)
    assert outbox.fits(b"x" * 100)
    outbox.push(b"x" * 6)
    assert (outbox.fits(b"x" * 4), outbox.fits(b"x" * 5)) == (True, False)
    outbox.push(b"y")
    assert not outbox.fits(b"")
    assert (outbox.pop(), len(outbox), outbox.num_bytes) == (b"x" * 6, 1, 1)
