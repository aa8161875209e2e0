"""Shared memory: who may map what, and what a dead source leaves behind."""

import contextlib
import fcntl
import mmap
import os
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from tests.transport import source_process
from twinfer.core.capabilities import Endpoint
from twinfer.core.errors import ConfigError, TransportError
from twinfer.core.ids import HandoffId
from twinfer.kv.memory import PoolMemory
from twinfer.transport.digest import digest_blocks, digest_views
from twinfer.transport.gate import RunningPull
from twinfer.transport.host import host_id
from twinfer.transport.shm import ShmSink, ShmSource

if sys.platform != "linux":
    pytest.skip("needs memfd", allow_module_level=True)
HANDOFF = HandoffId("ab" * 16)
SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW


@pytest.fixture
def memory() -> Iterator[PoolMemory]:
    """A pool of two pages, one to a block."""
    memory = PoolMemory(2, mmap.PAGESIZE, prefault=False)
    memory.view[:5] = b"hello"
    yield memory
    memory.close()


def test_a_peer_cannot_map_the_pool_for_writing(memory: PoolMemory):
    """The descriptor that a sink receives maps read-only, and nothing else can be done with it."""
    source = ShmSource()
    endpoint = source.start(memory)
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect("\0" + endpoint.address[1:])
        _, (fd,), _, _ = socket.recv_fds(connection, 64, 1)
    with pytest.raises(PermissionError):
        mmap.mmap(fd, memory.size)
    with pytest.raises(PermissionError):
        os.ftruncate(fd, 0)
    with pytest.raises(PermissionError):
        os.pwrite(fd, b"x", 0)
    with mmap.mmap(fd, memory.size, prot=mmap.PROT_READ) as mapping:
        assert mapping[:5] == b"hello"
    os.close(fd)
    source.close()


def test_a_socket_file_is_private_and_removed(memory: PoolMemory, tmp_path: Path):
    """With a directory the address is a file of mode 0600 that goes with the source."""
    source = ShmSource(tmp_path)
    endpoint = source.start(memory)
    assert [Path(endpoint.address)] == list(tmp_path.iterdir())
    assert Path(endpoint.address).stat().st_mode & 0o777 == 0o600
    sink = ShmSink()
    sink.admit(HANDOFF)
    peer = sink.connect(endpoint, mmap.PAGESIZE)
    views = [memoryview(bytearray(mmap.PAGESIZE))]
    assert digest_blocks(memory, [0]) == sink.pull(peer, HANDOFF, [0], views, time.monotonic() + 60)
    for each in (peer, sink, source):
        each.close()
    assert list(tmp_path.iterdir()) == []


def test_another_user_is_no_peer(memory: PoolMemory, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture):
    """The kernel tells who connected and who listens: a process of another user gets no pool, and passes none."""
    source, sink = ShmSource(), ShmSink()
    endpoint, own = source.start(memory), os.getuid()
    monkeypatch.setattr("twinfer.transport.shm.os.getuid", lambda: own + 1)
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect("\0" + endpoint.address[1:])
        assert (b"", []) == socket.recv_fds(connection, 64, 1)[:2]
    assert "a process of another user asked for the KV pool and was turned away" in caplog.text
    with pytest.raises(TransportError, match="runs as another user; it is not trusted"):
        sink.connect(endpoint, mmap.PAGESIZE)
    for each in (sink, source):
        each.close()


def test_memory_without_a_file_cannot_be_shared():
    """Where there is no memfd the message says what to configure."""

    class Anonymous:
        num_blocks, block_bytes, fd, view = 1, 8, None, memoryview(bytearray(8))

    with pytest.raises(ConfigError, match=r"set link\.transport to 'tcp'"):
        ShmSource().start(Anonymous())


def test_a_directory_that_cannot_hold_a_socket_is_a_config_error(memory: PoolMemory, tmp_path: Path):
    """Missing, or too long for a socket's name: the message says what to name instead."""
    for directory in (tmp_path / "missing", tmp_path / ("long" * 30)):
        with pytest.raises(ConfigError, match="name a short, writable directory"):
            ShmSource(directory).start(memory)


def fake_pool(seals: int, size: int) -> int:
    """A file like a pool's, sealed and sized as told."""
    fd = os.memfd_create("fake", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(fd, size)
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, seals)
    return fd


@pytest.mark.parametrize(
    ("magic", "seals", "size", "message"),
    [
        (b"TWS1", 0, 8192, "not sealed"),
        (b"TWS1", fcntl.F_SEAL_GROW, 8192, "not sealed"),
        (b"TWS1", SEALS, 4096, "not of 8192 bytes"),
        (b"NOPE", SEALS, 8192, "no KV source"),
    ],
)
def test_a_sink_checks_what_it_is_passed(magic: bytes, seals: int, size: int, message: str):
    """A file that its owner could cut short would kill the reader, so it is not mapped."""

    def talk() -> None:
        connection, _ = server.accept()
        with connection:
            fd = fake_pool(seals, size)
            socket.send_fds(connection, [struct.pack("<4sQQ", magic, 4096, 2)], [fd])
            os.close(fd)

    with socket.socket(socket.AF_UNIX) as server, contextlib.closing(ShmSink()) as sink:
        server.bind(f"\0twinfer-test-{os.getpid()}")
        server.listen()
        thread = threading.Thread(target=talk)
        thread.start()
        before = len(os.listdir("/proc/self/fd"))
        with pytest.raises(TransportError, match=message):
            sink.connect(Endpoint("shm", f"@twinfer-test-{os.getpid()}", host_id()), 4096)
        thread.join()
        assert len(os.listdir("/proc/self/fd")) <= before


def test_a_pull_outlives_its_source():
    """A source killed in mid-pull leaves whole bytes: the mapping survives it, and the next pull is refused."""
    command = [sys.executable, str(Path(source_process.__file__)), "shm"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        endpoint = msgspec.json.decode(process.stdout.readline(), type=Endpoint)

        def kill(num_bytes: int, pull: RunningPull) -> None:
            process.kill()
            process.wait()

        size, handoff = source_process.BLOCK_BYTES, source_process.HANDOFF
        views = [memoryview(bytearray(size)) for _ in range(3)]
        sink = ShmSink(kill)
        sink.admit(handoff)
        peer = sink.connect(endpoint, size)
        digest = sink.pull(peer, handoff, [5, 9, 1], views, time.monotonic() + 60)
        assert digest_views(memoryview(bytes([block]) * size) for block in (5, 9, 1)) == digest
        with pytest.raises(TransportError, match="the source is gone"):
            sink.pull(peer, handoff, [5, 9, 1], views, time.monotonic() + 60)
        peer.close()
        sink.close()


def test_a_chatty_sink_is_cut_off(memory: PoolMemory, caplog: pytest.LogCaptureFixture):
    """The connection carries nothing from the sink, so what comes is a mistake."""
    source = ShmSource()
    endpoint = source.start(memory)
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(10)
        connection.connect("\0" + endpoint.address[1:])
        _, (fd,), _, _ = socket.recv_fds(connection, 64, 1)
        os.close(fd)
        connection.sendall(b"hello?")
        with contextlib.suppress(ConnectionResetError):
            assert connection.recv(1) == b""
    source.close()
    assert "a connection that carries none" in caplog.text
