"""What a transport is: a source that lets blocks of its pool be read, and a sink that reads them.

1. ``KVSource.start`` publishes a pool and says where; ``KVSink.connect`` reaches it and checks the size of a block.
2. The source offers blocks under a handoff; the sink admits that handoff: from now on its bytes may land.
3. ``KVSink.pull`` copies whole blocks into given memory and returns the digest of what then lies there.
4. ``KVSink.fence`` ends a handoff, well or badly: after it no byte of it lands. ``KVSource.release`` ends the offer.

Calls block, except where noted, and come from a worker's transfer thread. What a pull brought is valid only if its
digest is the one the source announced: blocks that were released and reused meanwhile are found out by that. Without
digests the source must be asked afterwards whether it held them all the while.
"""

from collections.abc import Sequence
from typing import Literal, Protocol, TypeVar

import msgspec

from twinfer.core.capabilities import Endpoint
from twinfer.core.ids import HandoffId

CONNECT_TIMEOUT_S = 2.0


class TransportCapabilities(msgspec.Struct, frozen=True):
    """What callers must know about a transport.

    Args:
        name: as in ``Endpoint.transport``.
        direction: who moves the bytes: the sink pulls, or the source pushes.
        one_sided: the source's processor has no part in a pull.
        cancel_is_fence: a cancelled pull stops landing at once; else its memory stays in quarantine.
        encrypted: others on the network cannot read along.
        restricts_reads: only offered blocks can be read; else the whole pool is open to a connected peer.
        memory_kinds: where the bytes may lie on either side.
        max_descriptors: blocks in one pull, at most.
    """

    name: str
    direction: Literal["pull", "push"]
    one_sided: bool
    cancel_is_fence: bool
    encrypted: bool
    restricts_reads: bool
    memory_kinds: tuple[str, ...]
    max_descriptors: int


class SourceMemory(Protocol):
    """The pool a source publishes; ``kv.memory.PoolMemory`` is one."""

    @property
    def num_blocks(self) -> int:
        """Blocks in the pool."""
        ...

    @property
    def block_bytes(self) -> int:
        """Size of one block."""
        ...

    @property
    def fd(self) -> int | None:
        """A file that peers may map for reading, if there is one."""
        ...

    @property
    def view(self) -> memoryview:
        """All bytes of the pool."""
        ...


class Peer(Protocol):
    """A source, as a sink knows it."""

    @property
    def endpoint(self) -> Endpoint:
        """Where it listens."""
        ...

    @property
    def block_bytes(self) -> int:
        """Size of its blocks."""
        ...

    def close(self) -> None:
        """Let go of the connection: later pulls fail, running ones may end well. Safe to repeat."""
        ...


PeerT = TypeVar("PeerT", bound=Peer)


class KVSource(Protocol):
    """Lets peers read blocks of one pool."""

    @property
    def capabilities(self) -> TransportCapabilities:
        """What this transport can do."""
        ...

    def start(self, memory: SourceMemory) -> Endpoint:
        """Publish the pool, which must outlive this source. Returns at once, with the address to connect to.

        Raises:
            ConfigError: this machine or address cannot serve this transport.
        """
        ...

    def offer(self, handoff: HandoffId, blocks: Sequence[int]) -> None:
        """These blocks may now be read under this handoff, besides those offered before. From any thread."""
        ...

    def release(self, handoff: HandoffId) -> None:
        """Nothing may be read under this handoff any more; unknown ones are fine. From any thread."""
        ...

    def close(self) -> None:
        """Cut off all peers and return everything. Safe to repeat."""
        ...


class KVSink(Protocol[PeerT]):
    """Reads blocks of other workers' pools."""

    @property
    def capabilities(self) -> TransportCapabilities:
        """What this transport can do."""
        ...

    def connect(self, endpoint: Endpoint, block_bytes: int) -> PeerT:
        """Reach a source whose blocks have ``block_bytes``.

        Raises:
            TransportError: it is not there, is no source, or its blocks have another size.
        """
        ...

    def admit(self, handoff: HandoffId) -> None:
        """Bytes of this handoff may land from now on, until its fence. From any thread."""
        ...

    def pull(
        self,
        peer: PeerT,
        handoff: HandoffId,
        source_blocks: Sequence[int],
        destinations: Sequence[memoryview],
        deadline: float,
        *,
        digest: bool = True,
    ) -> int:
        """Copy whole blocks into writable memory of ``block_bytes`` each, pairwise; from several threads if need be.

        Returns the xxh3-64 over the bytes as they then lie in the destinations, in order, or 0. When it raises, the
        destinations hold anything, and nothing lands in them any more.

        Args:
            peer: a connected source.
            handoff: an admitted handoff, under which the source offers the blocks.
            source_blocks: block numbers in the source's pool.
            destinations: one flat view of bytes per block.
            deadline: monotonic seconds at which the pull fails.
            digest: whether the caller wants the digest.

        Raises:
            TransportError: not admitted, fenced, refused, too slow, or the peer is gone.
            ValueError: the destinations do not fit the blocks.
        """
        ...

    def fence(self, handoff: HandoffId) -> None:
        """When this returns, no byte of the handoff lands any more; its running pulls raise, later ones are refused.

        From any thread that is not in a pull of that handoff. Safe to repeat, and for handoffs never admitted.
        """
        ...

    def close(self) -> None:
        """Fence everything; the peers must be closed by those who connected them. Safe to repeat."""
        ...


def check_destinations(source_blocks: Sequence[int], destinations: Sequence[memoryview], peer: Peer) -> None:
    """See that each block has its own writable memory of the right size.

    Raises:
        ValueError: it does not; the caller's mistake.
    """
    if len(source_blocks) != len(destinations):
        raise ValueError(f"{len(source_blocks)} blocks need as many destinations, not {len(destinations)}")
    for view in destinations:
        if view.shape != (peer.block_bytes,) or view.itemsize != 1 or view.readonly:
            raise ValueError(f"a destination must be {peer.block_bytes} writable bytes, not {view!r} of {view.nbytes}")
