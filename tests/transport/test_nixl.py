"""NIXL, trap by trap: peers that stop, die or lie, bytes that come late, and what an idle worker costs."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.transport import sink_process, source_process
from twinfer.core.capabilities import Endpoint
from twinfer.core.errors import ConfigError, TransportError
from twinfer.core.ids import new_handoff_id
from twinfer.kv.memory import PoolMemory
from twinfer.transport.digest import digest_blocks, digest_views
from twinfer.transport.gate import Pace, RunningPull
from twinfer.transport.nixl import Fabric, NixlSink, NixlSource, doorbell, library, nixl_available
from twinfer.transport.nixl.agent import Agent, NixlError
from twinfer.transport.nixl.library import LOOPBACK, environment, exposure
from twinfer.transport.tcp import wire
from twinfer.transport.throttle import unlimited

ROOT = Path(__file__).parents[2]
needs_nixl = pytest.mark.skipif(nixl_available() is not None, reason=str(nixl_available()))
HANDOFF = source_process.HANDOFF
BLOCK_BYTES, NUM_BLOCKS = source_process.BLOCK_BYTES, source_process.NUM_BLOCKS
CANARY = 0xA5


@contextlib.contextmanager
def source_child() -> Iterator[tuple[subprocess.Popen[bytes], Endpoint]]:
    """A source in another process, whose blocks hold their own numbers."""
    command = [sys.executable, str(Path(source_process.__file__)), "nixl"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        yield process, msgspec.json.decode(process.stdout.readline(), type=Endpoint)
        process.kill()


@contextlib.contextmanager
def connected(
    endpoint: Endpoint, pace: Pace = unlimited, block_bytes: int = BLOCK_BYTES
) -> Iterator[tuple[NixlSink, Any]]:
    """A sink with one peer."""
    with (
        contextlib.closing(NixlSink(pace=pace)) as sink,
        contextlib.closing(sink.connect(endpoint, block_bytes)) as peer,
    ):
        yield sink, peer


@pytest.fixture
def served() -> Iterator[tuple[PoolMemory, NixlSource, Endpoint]]:
    """A source of this process, like that of a child."""
    memory = PoolMemory(NUM_BLOCKS, BLOCK_BYTES, prefault=False)
    source_process.fill(memory)
    with contextlib.closing(NixlSource()) as source:
        endpoint = source.start(memory)
        source.offer(HANDOFF, range(NUM_BLOCKS))
        yield memory, source, endpoint
    memory.close()


def room(num_blocks: int) -> list[memoryview]:
    """Destinations full of canaries."""
    return [memoryview(bytearray([CANARY]) * BLOCK_BYTES) for _ in range(num_blocks)]


def soon() -> float:
    """A deadline that no working pull meets."""
    return time.monotonic() + 60.0


def expected_digest(*blocks: int) -> int:
    """Of blocks that hold their own numbers."""
    return digest_views(memoryview(bytes([block]) * BLOCK_BYTES) for block in blocks)


def at_first(act: Callable[[], object]) -> Pace:
    """A pace that acts once, at the first bytes of all pulls."""
    done = threading.Event()

    def pace(num_bytes: int, pull: RunningPull) -> None:
        if not done.is_set():
            done.set()
            act()

    return pace


@needs_nixl
def test_nothing_lands_late_from_a_stopped_source():
    """A pull of a hung peer is fenced at once; what the peer still writes when it wakes up reaches no destination."""
    stopped = threading.Event()

    def stop() -> None:
        process.send_signal(signal.SIGSTOP)
        stopped.set()

    with source_child() as (process, endpoint), connected(endpoint, at_first(stop)) as (sink, peer):
        sink.admit(HANDOFF)
        views = room(NUM_BLOCKS)
        with ThreadPoolExecutor() as threads:
            pulling = threads.submit(sink.pull, peer, HANDOFF, range(NUM_BLOCKS), views, soon())
            stopped.wait()
            begin = time.monotonic()
            sink.fence(HANDOFF)
            assert time.monotonic() - begin < 30.0
            for view in views:
                view[:] = bytes([CANARY]) * BLOCK_BYTES
            with pytest.raises(TransportError, match="it was fenced"):
                pulling.result()
        process.send_signal(signal.SIGCONT)
        sink.admit(HANDOFF)
        assert expected_digest(*range(NUM_BLOCKS)) == sink.pull(
            peer, HANDOFF, range(NUM_BLOCKS), room(NUM_BLOCKS), soon()
        )
    assert [{CANARY}] * NUM_BLOCKS == [set(view) for view in views]


@needs_nixl
def test_a_stopped_source_is_left_at_the_deadline_and_serves_again():
    """NIXL would wait for ever. The agent that is built afterwards works."""
    with source_child() as (process, endpoint), connected(endpoint) as (sink, peer):
        sink.admit(HANDOFF)
        process.send_signal(signal.SIGSTOP)
        with pytest.raises(TransportError, match="deadline passed"):
            sink.pull(peer, HANDOFF, [3], room(1), time.monotonic() + 0.3)
        process.send_signal(signal.SIGCONT)
        assert expected_digest(3) == sink.pull(peer, HANDOFF, [3], room(1), soon())


@needs_nixl
def test_connecting_to_a_stopped_source_ends(monkeypatch: pytest.MonkeyPatch):
    """Its kernel accepts the connection; nothing else answers."""
    monkeypatch.setattr("twinfer.transport.nixl.sink.CONNECT_TIMEOUT_S", 0.3)
    with source_child() as (process, endpoint), contextlib.closing(NixlSink()) as sink:
        process.send_signal(signal.SIGSTOP)
        with pytest.raises(TransportError, match="deadline passed"):
            sink.connect(endpoint, BLOCK_BYTES)


@needs_nixl
def test_a_source_killed_in_mid_pull():
    """The pull fails at once, this process goes on, and a source started in its place is read like any other."""
    with contextlib.ExitStack() as stack:
        process, endpoint = stack.enter_context(source_child())

        def kill() -> None:
            process.kill()
            process.wait()

        sink, peer = stack.enter_context(connected(endpoint, at_first(kill)))
        sink.admit(HANDOFF)
        begin = time.monotonic()
        with pytest.raises(TransportError, match=r"broke off|reset|REMOTE_DISCONNECT"):
            sink.pull(peer, HANDOFF, range(NUM_BLOCKS), room(NUM_BLOCKS), soon())
        assert time.monotonic() - begin < 30.0
        _, endpoint = stack.enter_context(source_child())
        heir = stack.enter_context(contextlib.closing(sink.connect(endpoint, BLOCK_BYTES)))
        assert expected_digest(5) == sink.pull(heir, HANDOFF, [5], room(1), soon())


@needs_nixl
@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGSTOP])
def test_a_sink_that_dies_or_hangs_in_mid_pull_harms_nobody(
    end: signal.Signals, served: tuple[PoolMemory, NixlSource, Endpoint]
):
    """With reads in place of writes, its death would abort the source's process; and it holds up no other sink."""
    _, _, endpoint = served
    command = [sys.executable, "-m", sink_process.__name__]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(msgspec.json.encode(endpoint) + b"\n")
        process.stdin.flush()
        assert process.stdout.readline() == b"landed\n"
        process.send_signal(end)
        with connected(endpoint) as (sink, peer):
            sink.admit(HANDOFF)
            assert expected_digest(*range(NUM_BLOCKS)) == sink.pull(
                peer, HANDOFF, range(NUM_BLOCKS), room(NUM_BLOCKS), soon()
            )
        process.kill()


@needs_nixl
def test_idle_costs_nothing(served: tuple[PoolMemory, NixlSource, Endpoint]):
    """Two connected ends that have moved something use next to no processor; one spinning thread would use all."""
    _, _, endpoint = served
    with connected(endpoint) as (sink, peer):
        sink.admit(HANDOFF)
        sink.pull(peer, HANDOFF, [1], room(1), soon())
        before = time.process_time()
        time.sleep(1.0)
        assert time.process_time() - before < 0.1


@needs_nixl
def test_only_offered_blocks_are_written(served: tuple[PoolMemory, NixlSource, Endpoint]):
    """Neither others, nor those that were released; and a refusal harms no later pull."""
    _, source, endpoint = served
    with connected(endpoint) as (sink, peer):
        handoff = new_handoff_id()
        source.offer(handoff, [1])
        sink.admit(handoff)
        views = room(2)
        with pytest.raises(TransportError, match="block 2 is not offered"):
            sink.pull(peer, handoff, [1, 2], views, soon())
        assert [{CANARY}] * 2 == [set(view) for view in views]
        assert expected_digest(1) == sink.pull(peer, handoff, [1], room(1), soon())
        source.release(handoff)
        with pytest.raises(TransportError, match="nothing is offered"):
            sink.pull(peer, handoff, [1], room(1), soon())


@needs_nixl
def test_release_breaks_off_an_answer_under_way(
    served: tuple[PoolMemory, NixlSource, Endpoint], caplog: pytest.LogCaptureFixture
):
    """The source writes no blocks that are its own again."""
    _, source, endpoint = served
    with connected(endpoint, at_first(lambda: source.release(HANDOFF))) as (sink, peer):
        sink.admit(HANDOFF)
        with pytest.raises(TransportError, match=r"broke off|reset|nothing is offered"):
            sink.pull(peer, HANDOFF, range(NUM_BLOCKS), room(NUM_BLOCKS), soon())
    source.close()
    assert "was released while it was read" in caplog.text


@needs_nixl
def test_a_pool_outlives_its_owner():
    """Memory that NIXL may read cannot go away under it, which would crash the process."""
    memory = PoolMemory(2, 4096, prefault=False)
    memory.block(1)[:] = b"x" * 4096
    digest = digest_blocks(memory, [1])
    with contextlib.closing(NixlSource()) as source:
        endpoint = source.start(memory)
        source.offer(HANDOFF, [1])
        memory.close()
        with connected(endpoint, block_bytes=4096) as (sink, peer):
            sink.admit(HANDOFF)
            assert digest == sink.pull(peer, HANDOFF, [1], [memoryview(bytearray(4096))], soon())


@contextlib.contextmanager
def dialled(endpoint: Endpoint, secret: bytes | None = None) -> Iterator[socket.socket]:
    """A doorbell that was knocked at."""
    host, port, true_secret = doorbell.unseal(endpoint.address)
    with socket.create_connection((host, port), timeout=10) as connection:
        connection.sendall(true_secret if secret is None else secret)
        yield connection


def is_cut(connection: socket.socket) -> bool:
    """Whether the other side hangs up, with nothing more said."""
    try:
        return connection.recv(1) == b""
    except ConnectionError:
        return True


@needs_nixl
def test_strangers_learn_nothing(served: tuple[PoolMemory, NixlSource, Endpoint], caplog: pytest.LogCaptureFixture):
    """Without the secret nobody is even greeted."""
    _, source, endpoint = served
    with dialled(endpoint, bytes(doorbell.SECRET_BYTES)) as connection:
        assert is_cut(connection)
    source.close()
    assert "it does not know the secret" in caplog.text


@needs_nixl
def test_damaged_metadata_are_refused(
    served: tuple[PoolMemory, NixlSource, Endpoint], caplog: pytest.LogCaptureFixture
):
    """NIXL would believe them, so that bytes would go anywhere."""
    _, source, endpoint = served
    with contextlib.closing(Agent("twinfer-test", LOOPBACK)) as agent:
        whole = doorbell.Landing(agent.register(memoryview(bytearray(64))), 1, agent.metadata())
    ours, theirs = socket.socketpair()
    with ours, theirs:
        doorbell.send_landing(ours, whole)
        sent = theirs.recv(1 << 16)
        ours.sendall(sent)
        assert whole == doorbell.receive_landing(theirs)
    places = range(0, len(sent), 29)
    for place in places:
        with dialled(endpoint) as connection:
            wire.receive_greeting(connection, time.monotonic() + 5)
            connection.sendall(sent[:place] + bytes([sent[place] ^ 4]) + sent[place + 1 :])
            with contextlib.suppress(OSError):  # cut already
                connection.shutdown(socket.SHUT_WR)
            assert is_cut(connection)
    source.close()
    assert len(places) == caplog.text.count("closed the KV connection")


@needs_nixl
def test_a_damaged_address_is_refused(served: tuple[PoolMemory, NixlSource, Endpoint]):
    """Whatever bit of it flips."""
    _, _, endpoint = served
    where, _, secret = endpoint.address.partition("#")
    assert where == doorbell.shown(endpoint.address)
    with contextlib.closing(NixlSink()) as sink:
        for token in ("", "A" + secret, secret[:-4], secret.swapcase()):
            with pytest.raises(TransportError, match=where):
                sink.connect(msgspec.structs.replace(endpoint, address=f"{where}#{token}"), BLOCK_BYTES)
        with pytest.raises(TransportError, match="is damaged"):
            sink.connect(Endpoint("nixl", "nowhere", endpoint.host), BLOCK_BYTES)


@needs_nixl
def test_an_agent_goes_with_its_writes_under_way():
    """Nothing that a caller may keep, errors and their tracebacks included, keeps it; so its memory may go too."""
    target, agent = Agent("twinfer-test-target", LOOPBACK), Agent("twinfer-test", LOOPBACK)
    theirs, ours = memoryview(bytearray(64 << 20)), memoryview(bytearray(64 << 20))
    there, here = target.register(theirs), agent.register(ours)
    peer = agent.meet(target.metadata())
    write = agent.write(peer, [(here, there, 64 << 20)])
    assert not agent.is_done(write)  # nobody makes progress on the other side
    with pytest.raises(NixlError) as kept:
        agent.write(peer, [(here, there, (64 << 20) + 1)])
    remains = weakref.ref(agent._nixl.agent)
    agent.close()
    agent.close()
    target.close()
    assert remains() is None
    assert kept.value.args != ()


@needs_nixl
def test_a_missing_backend_is_a_config_error(monkeypatch: pytest.MonkeyPatch):
    """The message says what to do."""
    memory = PoolMemory(1, 64, prefault=False)
    source = NixlSource(Fabric(backend="NONE", trusted=True))
    with pytest.raises(ConfigError, match=r"no NONE plugin; set link\.transport"):
        source.start(memory)
    source.close()
    memory.close()
    monkeypatch.setattr(library, "_FLAVOURS", ("nixl_of_nobody",))
    with pytest.raises(ConfigError, match="make nixl"):
        NixlSource()


LOADING = """
import os, sys
from twinfer.kv.memory import PoolMemory
from twinfer.worker.transports import start_sources
from twinfer.core.config import LinkConfig
assert not [name for name in sys.modules if name.startswith("nixl_")]
memory = PoolMemory(1, 64, prefault=False)
sources = start_sources(LinkConfig(transport="nixl"), memory, "", None)
sources.close()
memory.close()
print(sources.endpoints[0].transport, "torch" in sys.modules, os.environ["UCX_TLS"], os.environ["UCX_TCP_TX_SEG_SIZE"])
"""


@needs_nixl
def test_loading_is_late_quiet_and_respects_the_environment():
    """Nothing is imported before it is used, torch never, nothing else is printed, and what the operator set stays."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith("UCX_")}
    answer = subprocess.run(
        [sys.executable, "-c", LOADING], env=environ | {"UCX_TCP_TX_SEG_SIZE": "128k"}, capture_output=True, check=True
    )
    assert answer.stdout.decode().split() == ["nixl", "False", "tcp,self", "128k"]


@pytest.mark.parametrize(
    ("fabric", "environ", "rdma", "message"),
    [
        (LOOPBACK, {}, (), None),
        (LOOPBACK, {"UCX_TLS": "tcp,self", "UCX_TCP_RX_SEG_SIZE": "64k"}, (), None),
        (LOOPBACK, {"UCX_NET_DEVICES": "all"}, (), "use what UCX_TLS and UCX_NET_DEVICES name"),
        (LOOPBACK, {"UCX_TLS": "all"}, (), "use what UCX_TLS and UCX_NET_DEVICES name"),
        (LOOPBACK, {}, ("mlx5_0",), "use RDMA devices"),
        (Fabric(backend="LIBFABRIC"), {}, (), "use RDMA devices"),
        (Fabric(trusted=True), {"UCX_TLS": "all"}, ("mlx5_0",), None),
    ],
)
@pytest.mark.skipif(sys.platform != "linux", reason="NIXL runs on Linux only")
def test_exposure(fabric: Fabric, environ: dict[str, str], rdma: tuple[str, ...], message: str | None):
    """Beyond loopback and private networks the operator must have said that everybody there may read along."""
    reason = exposure(fabric, environ, rdma)
    assert (message is None) == (reason is None)
    assert message is None or (message in str(reason) and "link.trust_network = true" in str(reason))


@pytest.mark.skipif(sys.platform != "linux", reason="NIXL runs on Linux only")
def test_a_public_address_needs_trust(monkeypatch: pytest.MonkeyPatch):
    """A private one does not."""
    monkeypatch.setattr(library, "_device_of", lambda host: "eth7")
    assert exposure(Fabric("10.1.2.3"), {}, ()) is None
    assert "the public address 8.8.4.4" in str(exposure(Fabric("8.8.4.4"), {}, ()))
    assert exposure(Fabric("8.8.4.4", trusted=True), {}, ()) is None


@pytest.mark.skipif(sys.platform != "linux", reason="NIXL runs on Linux only")
def test_environment():
    """Without RDMA, TCP over the one device that has the address; with it, UCX looks for itself."""
    assert (
        environment(LOOPBACK, ())["UCX_TLS"],
        environment(Fabric("127.0.0.2"), ())["UCX_NET_DEVICES"],
    ) == ("tcp,self", "lo")
    assert not {"UCX_TLS", "UCX_NET_DEVICES"} & environment(LOOPBACK, ("mlx5_0",)).keys()
    for host, message in (("203.0.113.77", "no network device"), ("localhost", "needs an IPv4 address")):
        with pytest.raises(ConfigError, match=message):
            environment(Fabric(host), ())


@given(st.integers(1, 5 << 20), st.integers(1, 40), st.sampled_from([1 << 18, 1 << 20]))
def test_fragments_are_the_stream(block_bytes: int, num_blocks: int, max_bytes: int):
    """Piece by piece, every byte of every block once and in order, each piece within its slot."""
    size = doorbell.piece_bytes(block_bytes)
    position = 0
    for piece in range(-(-block_bytes * num_blocks // size)):
        parts = list(doorbell.fragments(piece, block_bytes, num_blocks, max_bytes))
        assert position == piece * size
        for part in parts:
            assert position == part.nth * block_bytes + part.offset
            assert 0 < part.num_bytes <= max_bytes
            assert part.offset + part.num_bytes <= block_bytes
            position += part.num_bytes
        assert position - piece * size <= doorbell.SLOT_BYTES
    assert position == block_bytes * num_blocks
