"""What every transport must do, the fake included."""

import contextlib
import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.certificates import Cluster
from tests.transport import source_process
from twinfer.core.capabilities import Endpoint
from twinfer.core.errors import TransportError
from twinfer.core.ids import HandoffId, new_handoff_id
from twinfer.kv.memory import PoolMemory
from twinfer.tls.roles import PeerRole
from twinfer.transport.base import KVSink, KVSource
from twinfer.transport.digest import digest_blocks, digest_views
from twinfer.transport.gate import Pace, RunningPull
from twinfer.transport.host import host_id
from twinfer.transport.inproc import InprocHub, InprocSink, InprocSource
from twinfer.transport.nixl import NixlSink, NixlSource, nixl_available
from twinfer.transport.shm import ShmSink, ShmSource
from twinfer.transport.tcp import TcpSink, TcpSource
from twinfer.transport.throttle import unlimited

KINDS = [
    "inproc",
    "tcp",
    "tcp+tls",
    pytest.param("shm", marks=pytest.mark.skipif(sys.platform != "linux", reason="needs memfd")),
    pytest.param("nixl", marks=pytest.mark.skipif(nixl_available() is not None, reason=str(nixl_available()))),
]
CANARY = 0xA5


class Link:
    """Makes both ends of one transport, and closes what it made."""

    def __init__(self, kind: str, cluster: Cluster) -> None:
        self.kind = kind
        self.cluster = cluster
        self._hub = InprocHub()
        self._stack = contextlib.ExitStack()

    def source(self) -> KVSource:
        makers: dict[str, Callable[[], KVSource]] = {
            "inproc": lambda: InprocSource(self._hub),
            "shm": ShmSource,
            "tcp": TcpSource,
            "tcp+tls": lambda: TcpSource(credentials=self.cluster.credentials(PeerRole.WORKER)),
            "nixl": NixlSource,
        }
        source = makers[self.kind]()
        self._stack.callback(source.close)
        return source

    def sink(self, pace: Pace = unlimited) -> KVSink[Any]:
        makers: dict[str, Callable[[], KVSink[Any]]] = {
            "inproc": lambda: InprocSink(self._hub, pace),
            "shm": lambda: ShmSink(pace),
            "tcp": lambda: TcpSink(pace=pace),
            "tcp+tls": lambda: TcpSink(pace=pace, credentials=self.cluster.credentials(PeerRole.WORKER)),
            "nixl": lambda: NixlSink(pace=pace),
        }
        sink = makers[self.kind]()
        self._stack.callback(sink.close)
        return sink

    def memory(self, num_blocks: int, block_bytes: int) -> PoolMemory:
        memory = PoolMemory(num_blocks, block_bytes, prefault=False)
        memory.view[:] = random.Random(num_blocks).randbytes(memory.size)
        self._stack.callback(memory.close)
        return memory

    def pair(self, memory: PoolMemory, pace: Pace = unlimited) -> tuple[KVSource, KVSink[Any], Any]:
        source, sink = self.source(), self.sink(pace)
        peer = sink.connect(source.start(memory), memory.block_bytes)
        self._stack.callback(peer.close)
        return source, sink, peer

    def close(self) -> None:
        self._stack.close()


@pytest.fixture(params=KINDS)
def link(request: pytest.FixtureRequest, cluster: Cluster) -> Iterator[Link]:
    """Both ends of each transport in turn."""
    with contextlib.closing(Link(request.param, cluster)) as link:
        yield link


@pytest.fixture
def child(link: Link) -> Iterator[tuple[subprocess.Popen[bytes], Endpoint]]:
    """A source in another process."""
    if link.kind == "inproc":
        pytest.skip("has no other process")
    command = [sys.executable, str(Path(source_process.__file__)), link.kind]
    if link.kind == "tcp+tls":
        command += msgspec.structs.astuple(link.cluster.worker)
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        yield process, msgspec.json.decode(process.stdout.readline(), type=Endpoint)
        process.kill()


def room(num_blocks: int, block_bytes: int) -> list[memoryview]:
    """Destinations full of canaries."""
    view = memoryview(bytearray([CANARY]) * (num_blocks * block_bytes))
    return [view[i * block_bytes : (i + 1) * block_bytes] for i in range(num_blocks)]


def soon() -> float:
    """A deadline that no working pull meets."""
    return time.monotonic() + 60.0


class HoldAfterFirst:
    """A pace that stops each pull after its first bytes."""

    def __init__(self) -> None:
        self.landed = threading.Event()
        self.go_on = threading.Event()

    def __call__(self, num_bytes: int, pull: RunningPull) -> None:
        self.landed.set()
        self.go_on.wait()


def wait_until_stopped(num_bytes: int, pull: RunningPull) -> None:
    """A pace at which nothing but fence or deadline ends a pull."""
    pull.sleep(1e6)


@pytest.mark.parametrize("kind", KINDS)
def test_random_scattered_blocks_arrive_exactly(kind: str, cluster: Cluster):
    """Whatever blocks are asked for, in whatever order, arrive with the digest that the source computes of them."""
    with contextlib.closing(Link(kind, cluster)) as link:
        memory = link.memory(23, 3001)
        source, sink, peer = link.pair(memory)
        handoff = new_handoff_id()
        source.offer(handoff, range(23))
        sink.admit(handoff)

        @settings(max_examples=30, deadline=None)
        @given(st.lists(st.integers(0, 22), max_size=40))
        def check(blocks: list[int]) -> None:
            views = room(len(blocks), 3001)
            digest = sink.pull(peer, handoff, blocks, views, soon())
            assert [bytes(memory.block(block)) for block in blocks] == [bytes(view) for view in views]
            assert digest_blocks(memory, blocks) == digest

        check()


@pytest.mark.parametrize(("num_blocks", "block_bytes"), [(9, 700_001), (3, 2 << 20), (2500, 4096), (1, 1)])
def test_pulls_of_many_sizes_arrive_exactly(link: Link, num_blocks: int, block_bytes: int):
    """Blocks larger than a piece, more blocks than a system call takes, several connections: all the same."""
    memory = link.memory(num_blocks, block_bytes)
    source, sink, peer = link.pair(memory)
    handoff = new_handoff_id()
    blocks = random.Random(1).sample(range(num_blocks), num_blocks)
    source.offer(handoff, blocks)
    sink.admit(handoff)
    views = room(num_blocks, block_bytes)
    digest = sink.pull(peer, handoff, blocks, views, soon())
    assert digest_views(memory.block(block) for block in blocks) == digest
    assert digest_views(views) == digest


def test_an_empty_pull_moves_nothing(link: Link):
    """No blocks have the digest of no bytes."""
    memory = link.memory(1, 16)
    _, sink, peer = link.pair(memory)
    handoff = new_handoff_id()
    sink.admit(handoff)
    assert digest_views([]) == sink.pull(peer, handoff, [], [], soon())


def test_a_digest_may_be_left_out(link: Link):
    """Then the bytes arrive all the same, and nobody looks at them."""
    memory = link.memory(9, 700_001)
    source, sink, peer = link.pair(memory)
    handoff, views = new_handoff_id(), room(9, 700_001)
    source.offer(handoff, range(9))
    sink.admit(handoff)
    assert sink.pull(peer, handoff, range(9), views, soon(), digest=False) == 0
    assert [bytes(memory.block(block)) for block in range(9)] == [bytes(view) for view in views]


def test_a_digest_shows_what_changed_after_it_was_announced(link: Link):
    """Reused blocks do not pass for the ones that were offered."""
    memory = link.memory(4, 5000)
    source, sink, peer = link.pair(memory)
    handoff = new_handoff_id()
    source.offer(handoff, [2])
    sink.admit(handoff)
    announced = digest_blocks(memory, [2])
    memory.block(2)[4999] ^= 1
    assert announced != sink.pull(peer, handoff, [2], room(1, 5000), soon())


@pytest.mark.parametrize("blocks", [[3], [0, 1, 2], [99]])
def test_what_is_not_offered_is_refused(link: Link, blocks: list[int]):
    """Where the transport can tell, only offered blocks are readable, and a refusal harms no later pull."""
    memory = link.memory(4, 100)
    source, sink, peer = link.pair(memory)
    if not sink.capabilities.restricts_reads:
        pytest.skip("shows its peer the whole pool")
    handoff, other = new_handoff_id(), new_handoff_id()
    source.offer(handoff, [0])
    source.offer(other, [3])
    for each in (handoff, other):
        sink.admit(each)
    with pytest.raises(TransportError, match=r"block \d+ is not offered"):
        sink.pull(peer, handoff, blocks, room(len(blocks), 100), soon())
    source.offer(handoff, [1])
    views = room(2, 100)
    sink.pull(peer, handoff, [1, 0], views, soon())
    assert [bytes(memory.block(1)), bytes(memory.block(0))] == [bytes(view) for view in views]
    source.release(handoff)
    source.release(handoff)
    with pytest.raises(TransportError, match="nothing is offered"):
        sink.pull(peer, handoff, [0], room(1, 100), soon())


@pytest.mark.parametrize("block", [4, -1, 1 << 31, 1 << 40])
def test_a_block_outside_the_pool_is_refused(link: Link, block: int):
    """No number reads memory that is not the pool's."""
    memory = link.memory(4, 100)
    source, sink, peer = link.pair(memory)
    handoff = new_handoff_id()
    source.offer(handoff, [0])
    sink.admit(handoff)
    with pytest.raises(TransportError, match=f"block {block} is not"):
        sink.pull(peer, handoff, [0, block], room(2, 100), soon())


def test_destinations_must_fit(link: Link):
    """Too few, too short or read-only memory is the caller's mistake, found before anything moves."""
    memory = link.memory(4, 100)
    source, sink, peer = link.pair(memory)
    handoff = new_handoff_id()
    source.offer(handoff, [0])
    sink.admit(handoff)
    for views in (room(2, 100), room(1, 99), [memoryview(bytes(100))], [memoryview(bytearray(100)).cast("I")]):
        with pytest.raises(ValueError, match="destination"):
            sink.pull(peer, handoff, [0], views, soon())


def test_blocks_of_another_size_are_refused_at_connect_time(link: Link):
    """Both sides must mean the same by a block."""
    memory = link.memory(4, 100)
    source, sink = link.source(), link.sink()
    endpoint = source.start(memory)
    assert Endpoint(link.kind, endpoint.address, host_id()) == endpoint
    with pytest.raises(TransportError, match="blocks of 100 bytes, not 101"):
        sink.connect(endpoint, 101)


def test_nothing_lands_for_a_handoff_that_is_not_admitted(link: Link):
    """Neither before its admission nor after its fence, so a pull that waited in a queue is harmless."""
    memory = link.memory(1, 100)
    source, sink, peer = link.pair(memory)
    handoff = new_handoff_id()
    source.offer(handoff, [0])
    views = room(1, 100)
    sink.fence(handoff)
    with pytest.raises(TransportError, match="not admitted"):
        sink.pull(peer, handoff, [0], views, soon())
    sink.admit(handoff)
    sink.fence(handoff)
    sink.fence(handoff)
    with pytest.raises(TransportError, match="not admitted"):
        sink.pull(peer, handoff, [0], views, soon())
    assert {CANARY} == set(views[0])
    sink.admit(handoff)
    assert digest_blocks(memory, [0]) == sink.pull(peer, handoff, [0], views, soon())


def test_fence_returns_only_when_nothing_lands_any_more(link: Link):
    """A fence in mid-pull waits for the pull to leave; canaries written afterwards stay."""
    pace = HoldAfterFirst()
    memory = link.memory(32, 1 << 20)
    source, sink, peer = link.pair(memory, pace)
    handoff = new_handoff_id()
    source.offer(handoff, range(32))
    sink.admit(handoff)
    views = room(32, 1 << 20)
    with ThreadPoolExecutor() as threads:
        pulling = threads.submit(sink.pull, peer, handoff, range(32), views, soon())
        pace.landed.wait()
        fencing = threads.submit(sink.fence, handoff)
        with pytest.raises(TimeoutError):
            fencing.result(timeout=0.05)
        pace.go_on.set()
        fencing.result()
        for view in views:
            view[:] = bytes([CANARY]) * (1 << 20)
        with pytest.raises(TransportError, match="it was fenced"):
            pulling.result()
    assert [bytes([CANARY]) * (1 << 20)] * 32 == [bytes(view) for view in views]


def test_fence_wakes_a_waiting_pull_and_spares_others(link: Link):
    """A pull that waits is stopped at once, one of another handoff goes on, and the peer stays usable."""
    memory = link.memory(4, 100)
    source, sink, peer = link.pair(memory, wait_until_stopped)
    first, second = new_handoff_id(), new_handoff_id()
    for handoff in (first, second):
        source.offer(handoff, range(4))
        sink.admit(handoff)
    with ThreadPoolExecutor() as threads:
        pulls = [threads.submit(sink.pull, peer, each, [0], room(1, 100), soon()) for each in (first, second)]
        sink.fence(first)
        with pytest.raises(TransportError, match=r"fenced|not admitted"):
            pulls[0].result()
        assert not pulls[1].done()
        sink.fence(second)
        with pytest.raises(TransportError, match=r"fenced|not admitted"):
            pulls[1].result()


def test_fences_at_any_moment(link: Link):
    """However far a pull has come, its memory belongs to the caller again after the fence."""
    memory = link.memory(64, 1 << 18)
    source, sink, peer = link.pair(memory)
    views = room(64, 1 << 18)
    canary = bytes([CANARY]) * (1 << 18)
    with ThreadPoolExecutor() as threads:
        for round_ in range(12):
            handoff = new_handoff_id()
            source.offer(handoff, range(64))
            sink.admit(handoff)
            pulling = threads.submit(sink.pull, peer, handoff, range(64), views, soon())
            while views[round_ * 5][0] == CANARY and not pulling.done():
                time.sleep(0)
            sink.fence(handoff)
            for view in views:
                view[:] = canary
            pulling.exception()
            assert [canary] * 64 == [bytes(view) for view in views]


def test_a_deadline_ends_a_pull(link: Link):
    """A slow link ends in an error, not in a hang; a deadline in the past moves nothing."""
    memory = link.memory(4, 100)
    source, sink, peer = link.pair(memory, wait_until_stopped)
    handoff = new_handoff_id()
    source.offer(handoff, range(4))
    sink.admit(handoff)
    with pytest.raises(TransportError, match="deadline passed"):
        sink.pull(peer, handoff, [0, 1], room(2, 100), time.monotonic() + 0.05)
    views = room(1, 100)
    with pytest.raises(TransportError, match="deadline passed"):
        sink.pull(peer, handoff, [0], views, time.monotonic() - 1)
    assert {CANARY} == set(views[0])


def test_a_closed_source_is_noticed(link: Link):
    """Pulls and new connections fail with the peer's name, not at their deadline."""
    memory = link.memory(4, 100)
    source, sink = link.source(), link.sink()
    endpoint = source.start(memory)
    peer = sink.connect(endpoint, 100)
    handoff = new_handoff_id()
    source.offer(handoff, [0])
    sink.admit(handoff)
    source.close()
    source.close()
    with pytest.raises(TransportError, match=endpoint.address.partition("#")[0]):
        sink.pull(peer, handoff, [0], room(1, 100), soon())
    with pytest.raises(TransportError, match=endpoint.address.partition("#")[0]):
        sink.connect(endpoint, 100)
    peer.close()


def test_a_peer_closed_in_mid_pull(link: Link):
    """Closing a connection pulls no memory from under a pull, which ends whole or not at all; the next is refused."""
    pace = HoldAfterFirst()
    memory = link.memory(32, 1 << 18)
    source, sink, peer = link.pair(memory, pace)
    handoff = new_handoff_id()
    source.offer(handoff, range(32))
    sink.admit(handoff)
    with ThreadPoolExecutor() as threads:
        pulling = threads.submit(sink.pull, peer, handoff, range(32), room(32, 1 << 18), soon())
        pace.landed.wait()
        peer.close()
        pace.go_on.set()
        if pulling.exception() is None:
            assert digest_blocks(memory, range(32)) == pulling.result()
        else:
            with pytest.raises(TransportError, match="closed"):
                pulling.result()
    with pytest.raises(TransportError, match="closed"):
        sink.pull(peer, handoff, [0], room(1, 1 << 18), soon())


def test_a_killed_source_is_noticed(link: Link, child: tuple[subprocess.Popen[bytes], Endpoint]):
    """A source process that ends by SIGKILL is an error long before the deadline."""
    process, endpoint = child
    sink = link.sink()
    peer = sink.connect(endpoint, source_process.BLOCK_BYTES)
    sink.admit(source_process.HANDOFF)
    views = room(2, source_process.BLOCK_BYTES)
    digest = sink.pull(peer, source_process.HANDOFF, [7, 3], views, soon())
    assert digest_views([memoryview(bytes([block]) * source_process.BLOCK_BYTES) for block in (7, 3)]) == digest
    process.kill()
    process.wait()
    with pytest.raises(TransportError, match=r"gone|broke off|reset|pipe|refused"):
        sink.pull(peer, source_process.HANDOFF, [7, 3], views, soon())
    with pytest.raises(TransportError, match="refused"):
        sink.connect(endpoint, source_process.BLOCK_BYTES)
    peer.close()


def num_descriptors() -> int:
    """Open ones; those on /dev/null are the test runner's, which opens and closes some at any time."""
    kinds = []
    for descriptor in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # the one through which this is read
            kinds.append(descriptor.readlink())
    return len([kind for kind in kinds if kind != Path(os.devnull)])


def test_nothing_leaks(link: Link):
    """After 200 pulls, good and bad, there are as many descriptors and threads as after two; then none."""

    def census() -> tuple[int, int]:
        return num_descriptors(), threading.active_count()

    before = census()
    memory = link.memory(4, 1 << 20)
    source, sink, peer = link.pair(memory)
    counts = []
    for number in range(200):
        handoff = HandoffId(f"{number:032x}")
        source.offer(handoff, range(4))
        sink.admit(handoff)
        sink.pull(peer, handoff, range(4), room(4, 1 << 20), soon())
        if number % 10 == 1:
            with pytest.raises(TransportError):
                sink.pull(peer, handoff, [0], room(1, 1 << 20), 0.0)
            counts.append(census())
        sink.fence(handoff)
        source.release(handoff)
    assert max(fds for fds, _ in counts) <= counts[0][0] + 2
    assert max(threads for _, threads in counts) <= counts[0][1] + 2
    link.close()
    assert before == census()


def test_two_sinks_at_once(link: Link):
    """Each gets its own bytes whole."""
    memory = link.memory(48, 200_000)
    source, sink, peer = link.pair(memory)
    other = link.sink()
    other_peer = other.connect(peer.endpoint, 200_000)
    handoff = new_handoff_id()
    source.offer(handoff, range(48))

    def pull(sink: KVSink[Any], peer: Any, seed: int) -> tuple[int, int]:
        blocks = random.Random(seed).sample(range(48), 48)
        return digest_blocks(memory, blocks), sink.pull(peer, handoff, blocks, room(48, 200_000), soon())

    sink.admit(handoff)
    other.admit(handoff)
    with ThreadPoolExecutor() as threads:
        jobs = [threads.submit(pull, s, p, i) for i, (s, p) in enumerate([(sink, peer), (other, other_peer)] * 4)]
        for expected, actual in (job.result() for job in jobs):
            assert expected == actual
    other_peer.close()


def test_closing_a_sink_ends_its_pulls(link: Link):
    """Close fences everything, and nothing is admitted afterwards."""
    memory = link.memory(4, 100)
    source, sink, peer = link.pair(memory, wait_until_stopped)
    handoff = new_handoff_id()
    source.offer(handoff, [0])
    sink.admit(handoff)
    with ThreadPoolExecutor() as threads:
        pulling = threads.submit(sink.pull, peer, handoff, [0], room(1, 100), soon())
        sink.close()
        sink.close()
        with pytest.raises(TransportError, match=r"fenced|not admitted"):
            pulling.result()
    with pytest.raises(TransportError, match="closed"):
        sink.admit(handoff)
