"""The transport within one process, and the one that can be told to go wrong: what tests are run against.

A hub stands for the network between sources and sinks of one process. ``hub.faults`` are used up one per pull.
"""

import itertools
from collections import deque
from collections.abc import Sequence
from enum import Enum

from twinfer.core.capabilities import Endpoint
from twinfer.core.errors import TransportError
from twinfer.core.ids import HandoffId
from twinfer.transport.base import SourceMemory, TransportCapabilities, check_destinations
from twinfer.transport.digest import copy_blocks, digest_views, new_hasher
from twinfer.transport.gate import Pace, PullGate
from twinfer.transport.host import host_id
from twinfer.transport.offers import OfferBook
from twinfer.transport.throttle import unlimited

INPROC_CAPABILITIES = TransportCapabilities(
    name="inproc",
    direction="pull",
    one_sided=True,
    cancel_is_fence=True,
    encrypted=False,
    restricts_reads=True,
    memory_kinds=("host",),
    max_descriptors=1 << 20,
)


class Fault(Enum):
    """What may go wrong with a pull."""

    CORRUPT = "one bit of the last block flips on the way"
    SHORT = "the last block never comes"
    FAIL = "nothing comes"
    DIE = "the source is gone"


class InprocHub:
    """Where sources are found by address."""

    def __init__(self) -> None:
        self.sources: dict[str, InprocSource] = {}
        self.faults: deque[Fault] = deque()
        self.numbers = itertools.count()


class InprocSource:
    """A pool of this process."""

    capabilities = INPROC_CAPABILITIES

    def __init__(self, hub: InprocHub) -> None:
        self._hub = hub
        self._address = str(next(hub.numbers))
        self.offers = OfferBook()

    def start(self, memory: SourceMemory) -> Endpoint:
        """Publish the pool in the hub."""
        self.pool = memory
        self._hub.sources[self._address] = self
        return Endpoint("inproc", self._address, host_id())

    def offer(self, handoff: HandoffId, blocks: Sequence[int]) -> None:
        """These blocks may be read under this handoff."""
        self.offers.offer(handoff, blocks)

    def release(self, handoff: HandoffId) -> None:
        """Not any more."""
        self.offers.release(handoff)

    def close(self) -> None:
        """Be gone."""
        self._hub.sources.pop(self._address, None)


class InprocPeer:
    """A source of the same hub."""

    def __init__(self, endpoint: Endpoint, block_bytes: int) -> None:
        self.endpoint = endpoint
        self.block_bytes = block_bytes
        self.closed = False

    def close(self) -> None:
        """Refuse later pulls."""
        self.closed = True


class InprocSink:
    """Copies from pools of the same process."""

    capabilities = INPROC_CAPABILITIES

    def __init__(self, hub: InprocHub, pace: Pace = unlimited) -> None:
        self._hub = hub
        self._pace = pace
        self._gate = PullGate()

    def connect(self, endpoint: Endpoint, block_bytes: int) -> InprocPeer:
        """Find the source and compare the size of its blocks."""
        theirs = self._source(endpoint.address).pool.block_bytes
        if theirs != block_bytes:
            raise TransportError(f"source {endpoint.address} has blocks of {theirs} bytes, not {block_bytes}")
        return InprocPeer(endpoint, block_bytes)

    def admit(self, handoff: HandoffId) -> None:
        """Bytes of this handoff may land."""
        self._gate.admit(handoff)

    def pull(
        self,
        peer: InprocPeer,
        handoff: HandoffId,
        source_blocks: Sequence[int],
        destinations: Sequence[memoryview],
        deadline: float,
        *,
        digest: bool = True,
    ) -> int:
        """Copy offered blocks, or do what the next fault says; see ``KVSink``."""
        check_destinations(source_blocks, destinations, peer)
        address = peer.endpoint.address
        with self._gate.run(handoff, f"source {address}", deadline) as pull:
            fault = self._hub.faults.popleft() if self._hub.faults else None
            if fault is Fault.DIE:
                self._hub.sources.pop(address, None)
            if peer.closed:
                raise pull.fail("the connection is closed")
            source = self._source(address)
            refusal = fault.value if fault is Fault.FAIL else source.offers.refusal(handoff, source_blocks)
            if refusal is not None:
                raise pull.fail(refusal)
            if fault is Fault.SHORT:
                source_blocks, destinations = source_blocks[:-1], destinations[:-1]
            summed = copy_blocks(
                source.pool.view, source_blocks, destinations, pull, self._pace, new_hasher(digest=digest)
            )
            if fault is Fault.SHORT:
                raise pull.fail(fault.value)
            if fault is Fault.CORRUPT:
                destinations[-1][-1] ^= 1
                return digest_views(destinations) if digest else 0
            return summed

    def fence(self, handoff: HandoffId) -> None:
        """Nothing of this handoff lands after this returns."""
        self._gate.fence(handoff)

    def close(self) -> None:
        """Fence everything."""
        self._gate.close()

    def _source(self, address: str) -> InprocSource:
        if address not in self._hub.sources:
            raise TransportError(f"source {address} is gone, or was never in this process")
        return self._hub.sources[address]
