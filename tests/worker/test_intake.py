"""A handoff's way into the pool: nothing lands elsewhere, nothing lands after the end."""

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field

import msgspec
import numpy as np
import pytest

from twinfer.core.capabilities import Endpoint
from twinfer.core.errors import TransportError
from twinfer.core.ids import HandoffId
from twinfer.core.layout import KVDtype, KVLayout
from twinfer.core.manifest import Chunk
from twinfer.kv.elements import BlockArrays, ElementView
from twinfer.kv.memory import PoolMemory
from twinfer.transport.digest import digest_blocks
from twinfer.transport.inproc import INPROC_CAPABILITIES, Fault, InprocHub, InprocPeer, InprocSink, InprocSource
from twinfer.worker.compatibility import ConversionPlan
from twinfer.worker.intake import Intake, Staging
from twinfer.worker.transports import Connection

SHAPE = KVLayout(num_layers=2, num_kv_heads=2, head_dim=4, block_tokens=8, dtype="fp32")
HANDOFF = HandoffId("h")
CANARY = 0x5A
ROWS = (np.arange(40 * 32).reshape(40, 32) * 5 % 16 - 8).astype(np.int8)
"""40 tokens of KV."""
FAR = 1e12


@dataclass
class Bench:
    """A source that holds ``ROWS`` in its first blocks, a sink full of canaries, and the way between them."""

    source: KVLayout
    sink: KVLayout
    hub: InprocHub = field(default_factory=InprocHub)

    def __post_init__(self) -> None:
        num_blocks = self.source.blocks_for(40)
        self.theirs = PoolMemory(num_blocks, self.source.block_bytes, prefault=False)
        ElementView(self.theirs.view, self.source).write_tokens(range(num_blocks), 0, ROWS)
        self.ours = PoolMemory(20, self.sink.block_bytes, prefault=False)
        self.ours.view[:] = bytes([CANARY]) * len(self.ours.view)
        offers = InprocSource(self.hub)
        endpoint = offers.start(self.theirs)
        offers.offer(HANDOFF, range(num_blocks))
        sink = InprocSink(self.hub)
        sink.admit(HANDOFF)
        self.connection = Connection(sink, sink.connect(endpoint, self.source.block_bytes), endpoint)
        self.plan = ConversionPlan(self.source, self.sink, "emulated/fp32", foreign=False)

    def chunk(self, first: int, last: int) -> Chunk:
        """The source's blocks ``[first, last)``."""
        blocks = tuple(range(first, last))
        return Chunk(0, first, blocks, digest_blocks(self.theirs, blocks))

    def touched(self) -> set[int]:
        """The sink's blocks that are not all canaries."""
        size = self.sink.block_bytes
        return {block for block in range(20) if any(byte != CANARY for byte in self.ours.view[block * size :][:size])}


def a_form(block_tokens: int, dtype: KVDtype) -> KVLayout:
    """The shape in this form."""
    return msgspec.structs.replace(SHAPE, block_tokens=block_tokens, dtype=dtype)


@pytest.mark.parametrize("source", [(8, "fp32"), (12, "fp32"), (12, "fp8"), (3, "bf16")])
@pytest.mark.parametrize("order", [1, -1])
def test_only_what_is_missing_is_written(source: tuple[int, KVDtype], order: int) -> None:
    """From the end of the sink's prefix to the prompt's, into the bound blocks, whatever the chunks and their order."""
    bench = Bench(a_form(*source), a_form(8, "fp32"))
    bound, tokens = (11, 4, 7), range(16, 37)
    intake = Intake(bench.plan, tokens, bench.ours, Staging(1 << 20))
    intake.bind(bound)
    first, last = 16 // source[0], bench.source.blocks_for(37)
    for block in range(first, last)[::order]:
        chunk = bench.chunk(block, block + 1)
        assert chunk.digest == intake.pull(bench.connection, HANDOFF, chunk, FAR)
    assert set(bound) == bench.touched()
    found = ElementView(bench.ours.view, bench.sink).read_tokens(bound, 21)
    assert np.array_equal(ROWS[16:37], found)
    if intake.plan.converts:
        assert not BlockArrays(bench.ours.view, bench.sink).elements[7, ..., 5:, :].any()


@pytest.mark.parametrize("fault", [Fault.CORRUPT, Fault.SHORT, Fault.FAIL])
def test_what_did_not_arrive_is_not_converted(fault: Fault) -> None:
    """No byte of the pool changes; the next pull brings it."""
    bench = Bench(a_form(12, "bf16"), a_form(8, "fp8"))
    intake = Intake(bench.plan, range(40), bench.ours, Staging(1 << 20))
    intake.bind(tuple(range(5)))
    bench.hub.faults.append(fault)
    chunk = bench.chunk(0, 4)
    if fault is Fault.CORRUPT:
        assert chunk.digest != intake.pull(bench.connection, HANDOFF, chunk, FAR)
    else:
        with pytest.raises(TransportError):
            intake.pull(bench.connection, HANDOFF, chunk, FAR)
    assert bench.touched() == set()
    assert chunk.digest == intake.pull(bench.connection, HANDOFF, chunk, FAR)
    assert np.array_equal(ROWS, ElementView(bench.ours.view, bench.sink).read_tokens(range(5), 40))


def test_nothing_is_written_after_the_end() -> None:
    """A pull that comes through late brings its digest and changes nothing."""
    bench = Bench(a_form(12, "bf16"), a_form(8, "fp8"))
    intake = Intake(bench.plan, range(40), bench.ours, Staging(1 << 20))
    intake.bind(tuple(range(5)))
    intake.stop()
    intake.stop()
    chunk = bench.chunk(0, 4)
    assert chunk.digest == intake.pull(bench.connection, HANDOFF, chunk, FAR)
    assert bench.touched() == set()


def test_the_end_waits_for_a_conversion_under_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """R3: when ``stop`` has returned the blocks may be given away, so it does not return while one is being written."""
    from twinfer.worker import intake as module

    bench = Bench(a_form(12, "bf16"), a_form(8, "fp8"))
    intake = Intake(bench.plan, range(40), bench.ours, Staging(1 << 20))
    intake.bind(tuple(range(5)))
    convert, stopper = module.convert, threading.Thread(target=intake.stop)
    alive: list[bool] = []

    def slow(source: BlockArrays, sink: BlockArrays, stretch: object) -> None:
        stopper.start()
        stopper.join(0.05)
        alive.append(stopper.is_alive())
        convert(source, sink, stretch)  # type: ignore[arg-type]

    monkeypatch.setattr(module, "convert", slow)
    intake.pull(bench.connection, HANDOFF, bench.chunk(0, 4), FAR)
    stopper.join()
    assert alive == [True]
    assert bench.touched() == {0}


def test_staging_is_bounded_and_reused() -> None:
    """The same memory for every chunk; more than the bound is refused, one block never."""
    staging = Staging(100)
    first = staging.take(2, 50)
    first[:] = b"x" * 100
    assert bytes(staging.take(3, 20)) == b"x" * 60
    with pytest.raises(TransportError, match="lower handoff"):
        staging.take(2, 51)
    assert staging.take(1, 500).nbytes == 500


@dataclass
class UnfencedSink:
    """A transport on which bytes of a failed pull may land until the fence."""

    late: list[memoryview] = field(default_factory=list)
    capabilities = msgspec.structs.replace(INPROC_CAPABILITIES, cancel_is_fence=False)

    def pull(
        self,
        peer: object,
        handoff: str,
        blocks: Sequence[int],
        destinations: Sequence[memoryview],
        deadline: float,
        *,
        digest: bool = True,
    ) -> int:
        """Fail, and keep what could still be written to."""
        self.late += destinations
        raise TransportError("the deadline passed")


def test_memory_in_which_bytes_may_still_land_is_left_alone() -> None:
    """Where cancelling is no fence, the next chunk gets other staging memory."""
    bench = Bench(a_form(12, "bf16"), a_form(8, "fp8"))
    staging, sink = Staging(1 << 20), UnfencedSink()
    intake = Intake(bench.plan, range(40), bench.ours, staging)
    intake.bind(tuple(range(5)))
    endpoint = Endpoint("test", "", "")
    with pytest.raises(TransportError):
        intake.pull(
            Connection(sink, InprocPeer(endpoint, 1), endpoint),  # type: ignore[arg-type]
            HANDOFF,
            bench.chunk(0, 4),
            FAR,
        )
    room = staging.take(4, bench.source.block_bytes)
    room[:] = bytes(len(room))
    for view in sink.late:
        view[:] = b"\xff" * len(view)
    assert not any(room)
