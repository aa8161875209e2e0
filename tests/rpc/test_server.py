"""Server and client over real sockets, in one process."""

import asyncio
import logging
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import grpc.aio
import pytest

from tests.rpc.handlers import KEY, REPORT, EchoHandler, busy, cancel
from twinfer.core.errors import ConfigError, ProtocolError, TwinferError, WorkerLost
from twinfer.core.ids import Epoch, HandoffId, RequestId
from twinfer.core.messages import Gone, Heartbeat, Refused, Withdraw
from twinfer.rpc.client import WorkerClient, connect
from twinfer.rpc.codec import proof
from twinfer.rpc.server import ControlServer


@asynccontextmanager
async def serving(address: str = "127.0.0.1:0") -> AsyncIterator[tuple[EchoHandler, WorkerClient]]:
    """An echoing worker and a client of it."""
    handler = EchoHandler()
    server = ControlServer(handler, KEY, address)
    client = connect(await server.start(), KEY)
    yield handler, client
    await client.close()
    await server.stop(0)


async def test_both_streams_and_the_report():
    """Messages arrive as they were sent, in order, on each of the three methods, with a clean end."""
    async with serving() as (handler, client):
        gateway = client.gateway_stream()
        for number in range(300):
            gateway.send_soon(cancel(str(number)))
        assert [busy(str(number)) for number in range(300)] == [await anext(gateway) for _ in range(300)]
        handoff = client.handoff_stream()
        await handoff.send(Withdraw(HandoffId("ab"), 2, "why not"))
        assert Gone(HandoffId("ab"), 2, "why not") == await anext(handoff)
        beat = Heartbeat(Epoch("e"), (HandoffId("ab"),))
        handoff.send_soon(beat)
        assert beat == await anext(handoff)
        assert await client.report(10.0) == REPORT
        await handoff.close()
        await gateway.close()
        with pytest.raises(StopAsyncIteration):
            await anext(gateway)
        assert handler.endings == ["None"]


async def test_close_writes_what_is_queued():
    """The last words of a client reach the worker, and its stream ends without an error there."""
    heard: list[str] = []

    class Listener(EchoHandler):
        async def on_gateway(self, stream):
            async for message in stream:
                heard.append(message.request_id)
            self.endings.append(str(stream.error))

    handler = Listener()
    server = ControlServer(handler, KEY, "127.0.0.1:0")
    client = connect(await server.start(), KEY)
    stream = client.gateway_stream()
    for number in range(50):
        stream.send_soon(cancel(str(number)))
    await client.close()
    await client.close()
    assert [str(number) for number in range(50)] == heard
    assert handler.endings == ["None"]
    await server.stop(0)


async def test_the_worker_ends_a_stream():
    """When the handler returns, what it sent arrives first, then the iteration ends."""
    async with serving() as (_, client):
        stream = client.gateway_stream()
        await stream.send(cancel("leave"))
        assert [Refused(RequestId("leave"), "bye")] == [message async for message in stream]


async def test_unix_socket(tmp_path: Path):
    """A socket file works as an address, is private, and is gone afterwards; a stale one is replaced."""
    path = tmp_path / "control"
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(path))
    async with serving(f"unix:{path}") as (_, client):
        assert path.stat().st_mode & 0o777 == 0o600
        assert await client.report(10.0) == REPORT
    assert not path.exists()


async def test_an_address_in_use_is_a_config_error(tmp_path: Path):
    """Two servers never share a port or a socket file; the message says what to do."""
    for address in ("127.0.0.1:0", f"unix:{tmp_path}/control"):
        first = ControlServer(EchoHandler(), KEY, address)
        second = ControlServer(EchoHandler(), KEY, await first.start())
        with pytest.raises(ConfigError, match="in use: choose another with --listen"):
            await second.start()
        await second.stop()
        client = connect(address if "unix" in address else first.address, KEY)
        assert await client.report(10.0) == REPORT
        await client.close()
        await first.stop()


@pytest.mark.parametrize("address", ["0.0.0.0:0", "10.1.2.3:5000", "example.com:80", "[::]:0"])
def test_the_control_plane_stays_on_this_machine(address: str):
    """Without TLS nobody listens or calls elsewhere."""
    with pytest.raises(ConfigError, match="twinfer certs"):
        ControlServer(EchoHandler(), KEY, address)
    with pytest.raises(ConfigError, match="twinfer certs"):
        connect(address, KEY)


async def test_a_wrong_key_is_turned_away():
    """Every method asks for the proof before it reads, and says so in the log and to the caller."""
    async with serving() as (handler, client):
        stranger = connect(client.address, b"another key")
        with pytest.raises(ProtocolError, match="does not take our cluster key"):
            await stranger.report(10.0)
        for stream in (stranger.gateway_stream(), stranger.handoff_stream()):
            with pytest.raises(ProtocolError, match="does not take our cluster key"):
                await anext(stream)
        await stranger.close()
        assert handler.endings == []
        assert await client.report(10.0) == REPORT


async def test_no_proof_at_all_is_turned_away():
    """A caller that knows the method names gets nothing from them."""
    async with serving() as (_, client), grpc.aio.insecure_channel(client.address) as channel:
        for metadata in ((), (("twinfer-proof", ""),)):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await channel.unary_unary("/twinfer.Worker/Report")(b"", metadata=metadata)
            assert caught.value.code() == grpc.StatusCode.UNAUTHENTICATED


@pytest.mark.parametrize("garbage", [b"\xc1", b"\x80", b"\x81\xa4type\xa5Nobody", b"x" * 100_000])
async def test_an_undecodable_message_closes_that_stream_only(garbage: bytes, caplog: pytest.LogCaptureFixture):
    """The caller gets INVALID_ARGUMENT, the log a warning, and other streams live on."""
    async with serving() as (handler, client), grpc.aio.insecure_channel(client.address) as channel:
        other = client.gateway_stream()
        await other.send(cancel("before"))
        assert busy("before") == await anext(other)
        call = channel.stream_stream("/twinfer.Worker/Gateway")(metadata=(("twinfer-proof", proof(KEY)),))
        await call.write(garbage)
        with pytest.raises(grpc.aio.AioRpcError, match="is no ToWorker") as caught:
            await call.read()
        assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
        await other.send(cancel("after"))
        assert busy("after") == await anext(other)
        assert "is no ToWorker" in handler.endings[0]
    assert "is no ToWorker" in caplog.text


@pytest.mark.parametrize(
    ("name", "message", "level"),
    [("fail", "no more of this", logging.WARNING), ("break", "an internal error", logging.ERROR)],
)
async def test_a_failing_handler_ends_its_own_stream(
    name: str, message: str, level: int, caplog: pytest.LogCaptureFixture
):
    """An error of ours travels in words, a defect stays in the worker's log; the server goes on."""
    async with serving() as (_, client):
        stream = client.gateway_stream()
        await stream.send(cancel(name))
        with pytest.raises(WorkerLost, match=message):
            await anext(stream)
        assert await client.report(10.0) == REPORT
    assert [level] == [record.levelno for record in caplog.records if record.name.startswith("twinfer")]


async def test_a_lost_client_breaks_the_stream_at_the_worker():
    """A caller that vanishes in mid-stream is an error to the handler, not an end."""
    async with serving() as (handler, client):
        channel = grpc.aio.insecure_channel(client.address)
        call = channel.stream_stream("/twinfer.Worker/Gateway")(metadata=(("twinfer-proof", proof(KEY)),))
        await call.write(b"\x82\xa4type\xa6Cancel\xaarequest_id\xa1x")
        await call.read()
        await channel.close()
        while not handler.endings:
            await asyncio.sleep(0.01)
        assert "is gone" in handler.endings[0]


async def test_nobody_there_is_a_lost_worker():
    """An unreachable address shows at each call, with the address in the message."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
    client = connect(address, KEY)
    with pytest.raises(WorkerLost, match=address):
        await client.report(10.0)
    stream = client.gateway_stream()
    with pytest.raises(WorkerLost, match=address):
        await anext(stream)
    with pytest.raises(WorkerLost, match=address):
        await stream.send(cancel("x"))
    stream.send_soon(cancel("x"))
    await client.close()


async def test_a_closed_client_says_so():
    """Using it further is an error of ours."""
    async with serving() as (_, client):
        stream = client.gateway_stream()
        await client.close()
        with pytest.raises(TwinferError, match="closed"):
            await client.report(1.0)
        with pytest.raises(TwinferError, match="closed"):
            client.handoff_stream()
        with pytest.raises(TwinferError, match="closed"):
            await stream.send(cancel("x"))


async def test_stop_ends_open_streams():
    """After its grace a server cuts what is left; clients see a lost worker, and handlers end."""
    handler = EchoHandler()
    server = ControlServer(handler, KEY, "127.0.0.1:0")
    client = connect(await server.start(), KEY)
    stream = client.gateway_stream()
    await stream.send(cancel("x"))
    assert busy("x") == await anext(stream)
    await server.stop(0.05)
    with pytest.raises(WorkerLost):
        await anext(stream)
    assert len(handler.endings) == 1
    await server.stop(0.05)
    await client.close()


async def test_a_client_finds_a_restarted_worker():
    """The connection is opened anew after it broke."""
    first = ControlServer(EchoHandler(), KEY, "127.0.0.1:0")
    client = connect(await first.start(), KEY)
    assert await client.report(10.0) == REPORT
    await first.stop(0)
    second = ControlServer(EchoHandler(), KEY, first.address)
    assert first.address == await second.start()
    for _ in range(200):
        try:
            assert await client.report(10.0) == REPORT
            break
        except WorkerLost:
            await asyncio.sleep(0.05)
    else:
        pytest.fail("the client never came back")
    await client.close()
    await second.stop(0)


async def test_large_messages_pass():
    """A prompt of a million tokens is one message."""
    async with serving() as (_, client):
        stream = client.gateway_stream()
        name = "n" * (8 << 20)
        await stream.send(cancel(name))
        assert busy(name) == await anext(stream)
