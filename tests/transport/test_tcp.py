"""TCP against peers that break the protocol, vanish or hang."""

import contextlib
import logging
import random
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from twinfer.core.capabilities import Endpoint
from twinfer.core.errors import ConfigError, TransportError
from twinfer.core.ids import HandoffId
from twinfer.kv.memory import PoolMemory
from twinfer.transport.digest import digest_blocks
from twinfer.transport.gate import RunningPull
from twinfer.transport.host import host_id
from twinfer.transport.tcp import TcpPeer, TcpSink, TcpSource
from twinfer.transport.throttle import Speed, Throttle

HANDOFF = HandoffId("ab" * 16)
GREETING = struct.pack("<4sQQ", b"TWK1", 100, 8)
REQUEST_HEADER = struct.Struct("<4sHI")


@pytest.fixture
def served() -> Iterator[tuple[PoolMemory, TcpSource, Endpoint]]:
    """A source of 8 blocks of 100 bytes, all offered."""
    memory = PoolMemory(8, 100, prefault=False)
    memory.view[:] = random.Random(0).randbytes(800)
    source = TcpSource()
    endpoint = source.start(memory)
    source.offer(HANDOFF, range(8))
    yield memory, source, endpoint
    source.close()
    memory.close()


def dial(endpoint: Endpoint) -> socket.socket:
    """A connection whose greeting has been read."""
    host, _, port = endpoint.address.rpartition(":")
    connection = socket.create_connection((host, int(port)), timeout=10)
    assert connection.recv(len(GREETING), socket.MSG_WAITALL) == GREETING
    return connection


def is_cut(connection: socket.socket) -> bool:
    """Whether the other side hangs up, with nothing more said."""
    try:
        return connection.recv(1) == b""
    except ConnectionError:
        return True


@contextlib.contextmanager
def fake_source(talk: Callable[[socket.socket], None]) -> Iterator[Endpoint]:
    """Something that listens and is not our source; ``talk`` has the first connection."""

    def run() -> None:
        with contextlib.suppress(OSError):
            connection, _ = server.accept()
            with connection:
                talk(connection)

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=run)
        thread.start()
        yield Endpoint("tcp", f"127.0.0.1:{server.getsockname()[1]}", host_id())
        thread.join()


def pull_one(endpoint: Endpoint, seconds: float = 60.0) -> int:
    """Connect and pull block 0."""
    with contextlib.closing(TcpSink()) as sink:
        sink.admit(HANDOFF)
        with contextlib.closing(sink.connect(endpoint, 100)) as peer:
            return sink.pull(peer, HANDOFF, [0], [memoryview(bytearray(100))], time.monotonic() + seconds)


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.1.5", "example.com", "::"])
def test_plain_tcp_stays_on_this_machine(host: str):
    """No KV leaves the machine unencrypted, neither offered nor asked for."""
    with pytest.raises(ConfigError, match="unencrypted"):
        TcpSource(host)
    with contextlib.closing(TcpSink()) as sink, pytest.raises(TransportError, match="loopback"):
        sink.connect(Endpoint("tcp", f"{host}:1", host_id()), 100)


def test_a_port_in_use_is_a_config_error(served: tuple[PoolMemory, TcpSource, Endpoint]):
    """The message says what to do."""
    memory, _, endpoint = served
    with pytest.raises(ConfigError, match="choose port 0"):
        TcpSource(port=int(endpoint.address.rpartition(":")[2])).start(memory)


@pytest.mark.parametrize(
    "garbage",
    [
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        random.Random(7).randbytes(4096),
        REQUEST_HEADER.pack(b"TWQ1", 32, 0xFFFFFFFF),
        REQUEST_HEADER.pack(b"TWQ1", 0xFFFF, 1),
        REQUEST_HEADER.pack(b"TWQ1", 32, 0),
        REQUEST_HEADER.pack(b"TWQ0", 32, 1) + b"ab" * 16 + b"\0" * 4,
        REQUEST_HEADER.pack(b"TWQ1", 2, 1) + b"\xff\xfe" + b"\0" * 4,
    ],
)
def test_garbage_closes_that_connection_only(
    served: tuple[PoolMemory, TcpSource, Endpoint], garbage: bytes, caplog: pytest.LogCaptureFixture
):
    """The reason is logged, no memory is set aside for what is announced, and others are served on."""
    memory, _, endpoint = served
    with caplog.at_level(logging.WARNING), dial(endpoint) as connection:
        connection.sendall(garbage)
        assert is_cut(connection)
    assert "closed the KV connection of ('127.0.0.1'" in caplog.text
    assert digest_blocks(memory, [0]) == pull_one(endpoint)


@pytest.mark.parametrize("length", [1, 9, 10, 20, 45])
def test_a_truncated_request_closes_the_connection(
    served: tuple[PoolMemory, TcpSource, Endpoint], length: int, caplog: pytest.LogCaptureFixture
):
    """A sink that hangs up in mid-request is logged with how far it came."""
    _, _, endpoint = served
    request = REQUEST_HEADER.pack(b"TWQ1", 32, 1) + HANDOFF.encode() + struct.pack("<I", 0)
    with caplog.at_level(logging.WARNING), dial(endpoint) as connection:
        connection.sendall(request[:length])
        connection.shutdown(socket.SHUT_WR)
        assert is_cut(connection)
    assert "broke off after" in caplog.text


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (b"SSH-2.0-OpenSSH_9.2 and some more words", "no KV source"),
        (b"TW", "broke off after 2 of 20"),
        (b"", "broke off after 0 of 20"),
        (struct.pack("<4sQQ", b"TWK1", 64, 8), "blocks of 64 bytes, not 100"),
    ],
)
def test_something_else_that_listens_is_no_source(words: bytes, message: str):
    """Connecting to another service, or another version, says so."""
    with (
        fake_source(lambda connection: connection.sendall(words)) as endpoint,
        pytest.raises(TransportError, match=message),
    ):
        pull_one(endpoint)


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (struct.pack("<4sHQ", b"TWA1", 0, 1 << 60), "something else than the 100 bytes"),
        (struct.pack("<4sHQ", b"TWA1", 1, 1 << 60), "something else than the 100 bytes"),
        (struct.pack("<4sHQ", b"TWA1", 0, 99) + bytes(99), "something else than the 100 bytes"),
        (struct.pack("<4sHQ", b"NOPE", 0, 100) + bytes(100), "something else than the 100 bytes"),
        (struct.pack("<4sHQ", b"TWA1", 0, 100) + bytes(99), "the source broke off"),
        (struct.pack("<4sHQ", b"TWA1", 1, 5) + b"never", "the source refused, never"),
    ],
)
def test_a_wrong_answer_is_an_error(answer: bytes, message: str):
    """Lengths that do not fit, bytes that never come and strange words all end the pull."""

    def talk(connection: socket.socket) -> None:
        connection.sendall(GREETING)
        connection.recv(46, socket.MSG_WAITALL)
        connection.sendall(answer)

    with fake_source(talk) as endpoint, pytest.raises(TransportError, match=message):
        pull_one(endpoint)


def test_a_source_that_hangs_is_left_at_the_deadline():
    """A stopped process keeps its socket open, so the deadline is what ends the pull."""
    done = threading.Event()

    def talk(connection: socket.socket) -> None:
        connection.sendall(GREETING)
        done.wait()

    with fake_source(talk) as endpoint:
        try:
            with pytest.raises(TransportError, match="deadline passed"):
                pull_one(endpoint, seconds=0.1)
        finally:
            done.set()


def test_release_breaks_off_an_answer_under_way(caplog: pytest.LogCaptureFixture):
    """The source stops reading blocks that are its own again; the sink gets an error, not foreign bytes."""
    memory = PoolMemory(64, 1 << 20, prefault=False)
    source = TcpSource()
    endpoint = source.start(memory)
    source.offer(HANDOFF, range(64))

    def release_at_first(num_bytes: int, pull: RunningPull) -> None:
        source.release(HANDOFF)

    sink = TcpSink(connections=1, pace=release_at_first)
    sink.admit(HANDOFF)
    peer = sink.connect(endpoint, 1 << 20)
    room = bytearray(memory.size)
    views = [memoryview(room)[i << 20 : (i + 1) << 20] for i in range(64)]
    with pytest.raises(TransportError, match=r"broke off|reset"):
        sink.pull(peer, HANDOFF, range(64), views, time.monotonic() + 60)
    for each in (peer, sink, source, memory):
        each.close()
    assert "was released while it was read" in caplog.text


def test_a_throttled_link_takes_its_time(served: tuple[PoolMemory, TcpSource, Endpoint]):
    """Bytes beyond the rate wait, over all pulls of a sink."""
    memory, _, endpoint = served
    sink = TcpSink(pace=Throttle(Speed(20_000)))
    sink.admit(HANDOFF)
    peer = sink.connect(endpoint, 100)
    begin = time.monotonic()
    for _ in range(2):
        views = [memoryview(bytearray(100)) for _ in range(8)]
        assert digest_blocks(memory, range(8)) == sink.pull(peer, HANDOFF, range(8), views, begin + 60)
    assert time.monotonic() - begin >= 0.08
    peer.close()
    sink.close()


def test_too_many_blocks_are_the_callers_mistake(served: tuple[PoolMemory, TcpSource, Endpoint]):
    """What cannot be asked for is not sent."""
    _, _, endpoint = served
    sink = TcpSink()
    peer = sink.connect(endpoint, 100)
    views = [memoryview(bytearray(100))] * 65_537
    with pytest.raises(ValueError, match="65536 blocks at most"):
        sink.pull(peer, HANDOFF, [0] * 65_537, views, 0.0)
    peer.close()
    sink.close()


def test_a_restarted_source_at_the_same_address_knows_no_old_offer(served: tuple[PoolMemory, TcpSource, Endpoint]):
    """An address that was taken over reads as a refusal; never as bytes. The dead connection is not used again."""
    memory, source, endpoint = served
    sink = TcpSink()
    sink.admit(HANDOFF)
    peer = sink.connect(endpoint, 100)
    source.close()
    heir = TcpSource(port=int(endpoint.address.rpartition(":")[2]))
    assert endpoint == heir.start(memory)
    for _ in range(2):
        with pytest.raises(TransportError, match="nothing is offered"):
            sink.pull(peer, HANDOFF, [0], [memoryview(bytearray(100))], time.monotonic() + 60)
    for each in (peer, sink, heir):
        each.close()


def test_a_fence_does_not_wait_for_a_connection(monkeypatch: pytest.MonkeyPatch):
    """A source whose host does not even answer a connection attempt holds up no fence."""
    monkeypatch.setattr("twinfer.transport.tcp.sink.CONNECT_TIMEOUT_S", 60.0)
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        endpoint = Endpoint("tcp", f"127.0.0.1:{server.getsockname()[1]}", host_id())
        for _ in range(2):  # its queue is full, and nobody takes anything out of it
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(server.getsockname())
        sink = stack.enter_context(contextlib.closing(TcpSink()))
        peer = stack.enter_context(contextlib.closing(TcpPeer(endpoint, 100, max_idle=2)))
        sink.admit(HANDOFF)
        threads = stack.enter_context(ThreadPoolExecutor(1))
        pulling = threads.submit(sink.pull, peer, HANDOFF, [0], [memoryview(bytearray(100))], time.monotonic() + 60)
        with pytest.raises(TimeoutError):
            pulling.result(0.2)
        begin = time.monotonic()
        sink.fence(HANDOFF)
        assert time.monotonic() - begin < 30
        with pytest.raises(TransportError, match="it was fenced"):
            pulling.result()
