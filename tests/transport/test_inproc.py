"""The fake that ships: each fault shows as what it stands for, once."""

import time
from collections.abc import Iterator

import pytest

from twinfer.core.errors import TransportError
from twinfer.core.ids import HandoffId
from twinfer.kv.memory import PoolMemory
from twinfer.transport.digest import digest_blocks, digest_views
from twinfer.transport.inproc import Fault, InprocHub, InprocSink, InprocSource

HANDOFF = HandoffId("ab" * 16)


class World:
    """A source of three blocks and a sink, in one hub."""

    def __init__(self) -> None:
        self.hub = InprocHub()
        self.memory = PoolMemory(3, 10, prefault=False)
        self.memory.view[:] = bytes(range(30))
        self.source = InprocSource(self.hub)
        self.sink = InprocSink(self.hub)
        self.peer = self.sink.connect(self.source.start(self.memory), 10)
        self.source.offer(HANDOFF, range(3))
        self.sink.admit(HANDOFF)
        self.room = bytearray(30)

    def pull(self) -> int:
        """All three blocks."""
        views = [memoryview(self.room)[i * 10 : (i + 1) * 10] for i in range(3)]
        return self.sink.pull(self.peer, HANDOFF, range(3), views, time.monotonic() + 60)


@pytest.fixture
def world() -> Iterator[World]:
    """Fresh for each test."""
    world = World()
    yield world
    for each in (world.peer, world.sink, world.source, world.memory):
        each.close()


def test_corrupt_flips_a_bit_that_the_digest_shows(world: World):
    """The digest is of what arrived, so it differs from the source's; the next pull is whole."""
    world.hub.faults.append(Fault.CORRUPT)
    assert digest_views([memoryview(bytes(range(29)) + b"\x1c")]) == world.pull()
    assert digest_blocks(world.memory, range(3)) == world.pull()


@pytest.mark.parametrize(
    ("fault", "landed"), [(Fault.SHORT, bytes(range(20)) + bytes(10)), (Fault.FAIL, bytes(30)), (Fault.DIE, bytes(30))]
)
def test_failures_raise_with_their_reason(world: World, fault: Fault, landed: bytes):
    """What landed before the failure lies there, and nothing else."""
    world.hub.faults.append(fault)
    with pytest.raises(TransportError, match=f"{fault.value}|is gone"):
        world.pull()
    assert landed == bytes(world.room)


def test_a_dead_source_stays_dead(world: World):
    """After DIE every pull fails; after a mere failure the next works."""
    world.hub.faults.append(Fault.FAIL)
    with pytest.raises(TransportError):
        world.pull()
    assert digest_blocks(world.memory, range(3)) == world.pull()
    world.hub.faults.append(Fault.DIE)
    for _ in range(2):
        with pytest.raises(TransportError, match="is gone"):
            world.pull()


def test_a_closed_peer_pulls_nothing(world: World):
    """Closing the sink's side of a connection is enough."""
    world.peer.close()
    with pytest.raises(TransportError, match="connection is closed"):
        world.pull()
