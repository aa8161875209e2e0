import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator

import pytest

from tests.gateway.house import EOS, converse_body, open_house, post
from twinfer.core.config import Config
from twinfer.core.errors import ConfigError, EngineFailure
from twinfer.gateway.fake import FakeDispatcher, Script
from twinfer.gateway.models import ModelRegistry, ServedModel
from twinfer.gateway.serve import bind, build_app, serve

STREAM = "/model/twinfer.tiny-v1:0/converse-stream"


def test_a_busy_port_is_one_sentence() -> None:
    """Found before anything is started, and says what to set."""
    with bind("127.0.0.1", 0) as taken:
        taken.listen()
        with pytest.raises(ConfigError, match=r"cannot listen on 127\.0\.0\.1:\d+: .*; set gateway\.port"):
            bind("127.0.0.1", taken.getsockname()[1])


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "8.8.8.8"])
def test_an_open_address_is_refused(host: str) -> None:
    """Without authentication only this machine may ask."""
    with pytest.raises(ConfigError, match="authentication is not configured"):
        bind(host, 0)


def test_an_unknown_host_is_refused() -> None:
    """A typing error is not a stack trace."""
    with pytest.raises(ConfigError, match="not an address of this machine"):
        bind("no such host", 0)


def test_localhost_is_a_loopback_address() -> None:
    """Names are resolved first."""
    with bind("localhost", 0) as sock:
        assert sock.family in (socket.AF_INET, socket.AF_INET6)


@contextlib.asynccontextmanager
async def stream_at(address: tuple[str, int]) -> AsyncIterator[asyncio.StreamReader]:
    """A connection on which a stream has sent its first token."""
    reader, writer = await asyncio.open_connection(*address)
    try:
        writer.write(post(STREAM, converse_body()))
        await reader.readuntil(b"contentBlockDelta")
        yield reader
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


async def refuses_connections(address: tuple[str, int]) -> None:
    """Return when nobody listens there any more: connections are refused, or reset at the moment of closing."""
    while True:
        try:
            _, writer = await asyncio.open_connection(*address)
        except ConnectionError:
            return
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


async def test_running_streams_may_finish_when_the_server_stops(model: ServedModel, gate: asyncio.Event) -> None:
    """Stopping takes no new connections and lets what runs come to its clean end."""
    dispatcher = FakeDispatcher(lambda request: Script([[70], [EOS]], gates={1: gate}))
    sock, stop = bind("127.0.0.1", 0), asyncio.Event()
    address = sock.getsockname()[:2]
    serving = asyncio.create_task(serve(build_app(Config(), ModelRegistry([model]), dispatcher), sock, stop))
    async with stream_at(address) as stream:
        stop.set()
        await refuses_connections(address)
        gate.set()
        assert (await stream.read()).endswith(b"0\r\n\r\n")
    await asyncio.wait_for(serving, 10)


async def test_streams_that_take_too_long_are_broken_when_the_server_stops(
    model: ServedModel, gate: asyncio.Event, caplog: pytest.LogCaptureFixture
) -> None:
    """After the time for draining they get an exception frame and no clean end; the log has no traceback."""
    async with contextlib.AsyncExitStack() as stack:
        async with open_house(model, drain_s=0.1) as house:
            house.plays(Script([[70], [EOS]], gates={1: gate}))
            stream = await stack.enter_async_context(stream_at(house.address))
        rest = await stream.read()
    assert b"serviceUnavailableException" in rest
    assert not rest.endswith(b"0\r\n\r\n")
    assert house.all_closed
    assert "Traceback" not in caplog.text
    assert caplog.text.count("the stream broke") == 1


async def test_a_broken_stream_is_one_line_in_the_log(model: ServedModel, caplog: pytest.LogCaptureFixture) -> None:
    """What uvicorn would add to it is not news."""
    async with open_house(model) as house:
        house.plays(Script([[70]], failure=EngineFailure("Broken.")))
        async with stream_at(house.address) as stream:
            await stream.read()
    lines = [record.getMessage() for record in caplog.records if record.levelname in ("WARNING", "ERROR")]
    assert len(lines) == 1
    assert lines[0].endswith("the stream broke: Broken.")
