"""How the chunks of one handoff come into the blocks bound for it.

1. Where source and sink have one layout, a pull lands in the bound blocks themselves.
2. Else it lands in staging memory, is held against the source's digest there, and is converted only if it is right. The
   positions of a prefix that was here already are left out, and the rest of the last block is zeroed.
3. Once ``stop`` has returned, and the transport is fenced, nothing is written into the bound blocks any more.
"""

import threading

from twinfer.core.errors import TransportError
from twinfer.core.ids import HandoffId
from twinfer.core.manifest import Chunk
from twinfer.kv.convert import Stretch, convert, stretches
from twinfer.kv.elements import BlockArrays
from twinfer.kv.memory import PoolMemory
from twinfer.worker.compatibility import ConversionPlan
from twinfer.worker.transports import Connection


class Staging:
    """Memory in which chunks wait to be converted, one at a time; the transfer thread's.

    It is kept from chunk to chunk and tenant to tenant: what is read of it is what the last pull wrote, whole.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._buffer = memoryview(bytearray())

    def take(self, num_blocks: int, block_bytes: int) -> memoryview:
        """Room for a chunk, holding anything. A single block is always let in.

        Raises:
            TransportError: the chunk is larger than any that a source may offer.
        """
        num_bytes = num_blocks * block_bytes
        if num_bytes > self._max_bytes and num_blocks > 1:
            raise TransportError(
                f"a chunk of {num_bytes} bytes is more than {self._max_bytes}; lower handoff.chunk_kib"
            )
        if num_bytes > len(self._buffer):
            self._buffer = memoryview(bytearray(num_bytes))
        return self._buffer[:num_bytes]

    def abandon(self) -> memoryview:
        """Hand the memory over to someone who waits until nothing can land in it any more."""
        buffer, self._buffer = self._buffer, memoryview(bytearray())
        return buffer


class Intake:
    """One handoff's way into the pool.

    Args:
        plan: from which layout to which.
        tokens: positions that are to come, from the end of the prefix that is here to the end of the prompt, or of its
            last full block.
        memory: the sink's pool.
        staging: shared with the other handoffs.
        digests: whether chunks have digests; else that of all is 0.
    """

    def __init__(
        self, plan: ConversionPlan, tokens: range, memory: PoolMemory, staging: Staging, *, digests: bool = True
    ) -> None:
        self.plan = plan
        self.tokens = tokens
        self._memory = memory
        self._staging = staging
        self._digests = digests
        self._bound: tuple[int, ...] = ()
        self._first_bound = tokens.start // plan.sink.block_tokens
        self._writing = threading.Lock()
        self._stopped = False
        self._unsafe: list[memoryview] = []
        """Staging memory in which bytes may still land; held until the handoff has ended and is fenced."""

    def bind(self, blocks: tuple[int, ...]) -> None:
        """These pool blocks take the positions to come."""
        self._bound = blocks

    def pull(self, connection: Connection, handoff: HandoffId, chunk: Chunk, deadline: float) -> int:
        """Bring a chunk; the digest of its bytes as they arrived. On the transfer thread.

        Raises:
            TransportError: it did not arrive.
        """
        size, num_blocks = self.plan.source.block_bytes, len(chunk.source_blocks)
        sink, peer = connection.sink, connection.peer
        if not self.plan.converts:
            first = chunk.first_block - self._first_bound
            views = [self._memory.block(block) for block in self._bound[first : first + num_blocks]]
            return sink.pull(peer, handoff, chunk.source_blocks, views, deadline, digest=self._digests)
        room = self._staging.take(num_blocks, size)
        views = [room[index * size : (index + 1) * size] for index in range(num_blocks)]
        try:
            digest = sink.pull(peer, handoff, chunk.source_blocks, views, deadline, digest=self._digests)
        except TransportError:
            if not sink.capabilities.cancel_is_fence:
                self._unsafe.append(self._staging.abandon())
            raise
        if digest == chunk.digest:
            self._convert(chunk, room)
        return digest

    def stop(self) -> None:
        """Write nothing more; waits for a stretch under way, never for a peer. From any thread."""
        self._stopped = True
        with self._writing:
            pass

    def _convert(self, chunk: Chunk, room: memoryview) -> None:
        plan = self.plan
        source, sink = BlockArrays(room, plan.source), BlockArrays(self._memory.view, plan.sink)
        start = chunk.first_block * plan.source.block_tokens
        stop = start + len(chunk.source_blocks) * plan.source.block_tokens
        tokens = range(max(start, self.tokens.start), min(stop, self.tokens.stop))
        for stretch in stretches(tokens, plan.source.block_tokens, plan.sink.block_tokens):
            local = Stretch(
                stretch.source_block - chunk.first_block,
                stretch.source_offset,
                self._bound[stretch.sink_block - self._first_bound],
                stretch.sink_offset,
                stretch.num_tokens,
            )
            with self._writing:
                if self._stopped:
                    return
                convert(source, sink, local)
        if tokens.stop == self.tokens.stop and (tail := tokens.stop % plan.sink.block_tokens):
            with self._writing:
                if not self._stopped:
                    sink.zero(self._bound[-1], tail)
