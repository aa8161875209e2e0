"""The source's end: a thread per doorbell connection, with an agent of its own, that writes what it is asked for.

Between two requests the thread waits in ``recv``. A sink that is gone, stopped or fenced costs its own agent only.
"""

import logging
import mmap
import secrets
import select
import socket
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing, suppress
from hmac import compare_digest
from itertools import accumulate

from twinfer.core.capabilities import Endpoint
from twinfer.core.errors import ConfigError
from twinfer.core.ids import HandoffId
from twinfer.core.sparse_log import SparseLog
from twinfer.transport.base import CONNECT_TIMEOUT_S, SourceMemory, TransportCapabilities
from twinfer.transport.host import host_id
from twinfer.transport.listener import Listener, Settle
from twinfer.transport.nixl import doorbell
from twinfer.transport.nixl.agent import Agent, Memory, NixlError, Patience
from twinfer.transport.nixl.library import LOOPBACK, Fabric, check_fabric, rdma_devices
from twinfer.transport.offers import OfferBook
from twinfer.transport.tcp import wire
from twinfer.transport.tcp.meeting import prepare

NIXL_CAPABILITIES = TransportCapabilities(
    name="nixl",
    direction="push",
    one_sided=False,
    cancel_is_fence=True,
    encrypted=False,
    restricts_reads=False,
    memory_kinds=("host",),
    max_descriptors=wire.MAX_BLOCKS,
)

_IDLE_S = 300.0
"""A sink that asks for nothing for so long comes back by a new connection; agents are not kept for it."""
_STALL_S = 30.0
"""A sink that takes no piece, or does not finish its request, is left after that long."""

logger = logging.getLogger(__name__)


class NixlSource:
    """Writes offered blocks of one pool to the workers of this cluster, through NIXL.

    What is not offered is not written. That ``restricts_reads`` is false all the same says what NIXL does not prevent:
    somebody who reaches an agent's port, and means harm, reads whatever is in the process.

    Args:
        fabric: the network to be reached on.

    Raises:
        ConfigError: NIXL is not here, or strangers could reach it.
    """

    capabilities = NIXL_CAPABILITIES

    def __init__(self, fabric: Fabric = LOOPBACK) -> None:
        check_fabric(fabric)
        self._fabric = fabric
        self._offers = OfferBook()
        self._open = ExitStack()

    def start(self, memory: SourceMemory) -> Endpoint:
        """Listen; see ``KVSource``. Loads NIXL and tries it on the pool, which takes half a second."""
        pool = _registrable(memory)
        self._open.enter_context(suppress(BufferError))  # an agent that would not go keeps it mapped
        self._open.enter_context(pool)
        secret = secrets.token_bytes(doorbell.SECRET_BYTES)
        try:
            with closing(_new_agent(self._fabric)) as trial:
                trial.register(pool)
            server = socket.create_server((self._fabric.host, 0), backlog=128)
        except (NixlError, OSError) as error:
            raise ConfigError(
                f"KV cannot be served over NIXL ({self._fabric.backend}) on {self._fabric.host}: {error}; "
                "set link.transport to another"
            ) from error
        shape = wire.Greeting(memory.block_bytes, memory.num_blocks)
        serve = _Server(self._fabric, pool, shape, secret, self._offers).serve
        self._open.enter_context(closing(Listener(server, serve, "kv-nixl")))
        return Endpoint("nixl", doorbell.seal(self._fabric.host, server.getsockname()[1], secret), host_id())

    def offer(self, handoff: HandoffId, blocks: Sequence[int]) -> None:
        """These blocks may be asked for under this handoff."""
        self._offers.offer(handoff, blocks)

    def release(self, handoff: HandoffId) -> None:
        """Not any more; an answer under way breaks off."""
        self._offers.release(handoff)

    def close(self) -> None:
        """Hang up on all sinks, destroy all agents, and only then let go of the pool."""
        self._open.close()


def _new_agent(fabric: Fabric) -> Agent:
    return Agent(f"twinfer-source-{secrets.token_hex(8)}", fabric)


def _registrable(memory: SourceMemory) -> Memory:
    """The pool, mapped once more: no agent can write to it, and it stays for as long as one may read it.

    RDMA hardware takes only memory that it could also write, so there it is the pool itself.
    """
    if memory.fd is None or rdma_devices():
        return memoryview(memory.view)
    return mmap.mmap(memory.fd, memory.num_blocks * memory.block_bytes, prot=mmap.PROT_READ)


class _Server:
    """Talks to one sink at a time, on that connection's thread."""

    def __init__(self, fabric: Fabric, pool: Memory, shape: wire.Greeting, secret: bytes, offers: OfferBook) -> None:
        self._fabric = fabric
        self._pool = pool
        self._shape = shape
        self._secret = secret
        self._offers = offers
        self._complain = SparseLog(logger.warning)
        self._mention = SparseLog(logger.info)

    def serve(self, connection: socket.socket, settle: Settle) -> None:
        """Answer until the sink leaves or breaks the protocol."""
        peer = "a peer"
        try:
            peer = str(connection.getpeername())
            prepare(connection)
            connection.settimeout(CONNECT_TIMEOUT_S)
            if not compare_digest(connection.recv(doorbell.SECRET_BYTES, socket.MSG_WAITALL), self._secret):
                raise wire.WireError("it does not know the secret")
            settle()
            wire.send_greeting(connection, self._shape)
            landing = doorbell.receive_landing(connection)
            with closing(_new_agent(self._fabric)) as agent:
                writer = _Writer(agent, connection, landing, self._pool)
                writer.prove(doorbell.proof_of(self._secret))
                while (request := wire.receive_request(connection, _IDLE_S, _STALL_S)) is not None:
                    self._answer(connection, request, writer)
        except wire.WireError as error:
            self._complain("closed the KV connection of %s: %s", peer, error)
        except (NixlError, OSError) as error:
            self._mention("the KV connection of %s ended: %s", peer, error)

    def _answer(self, connection: socket.socket, request: wire.Request, writer: "_Writer") -> None:
        reason = self._offers.refusal(request.handoff, request.blocks)
        if reason is not None:
            connection.sendall(wire.refusal(reason))
            return
        connection.sendall(wire.accept_header(0))

        def check() -> None:
            if not self._offers.is_open(request.handoff):
                raise wire.WireError(f"the offer {request.handoff} was released while it was read")

        writer.write(request.blocks, self._shape.block_bytes, check)


class _Writer:
    """Writes to one sink's landing area."""

    def __init__(self, agent: Agent, connection: socket.socket, landing: doorbell.Landing, pool: Memory) -> None:
        self._agent = agent
        self._connection = connection
        self._landing = landing
        self._pool = agent.register(pool)
        self._sink = agent.meet(landing.metadata)
        self._hearing = select.poll()
        self._hearing.register(connection, select.POLLIN)

    def prove(self, proof: bytes) -> None:
        """Write that to the beginning of the landing area."""
        here = self._agent.register(memoryview(bytearray(proof)))
        self._finish(self._agent.write(self._sink, [(here, self._landing.address, len(proof))]), lambda: None)

    def write(self, blocks: Sequence[int], block_bytes: int, check: Callable[[], None]) -> None:
        """Write blocks, piece by piece; ``check`` is called again and again, and stops it by raising."""
        size = doorbell.piece_bytes(block_bytes)
        under_way: deque[int] = deque()
        for piece in range(-(-len(blocks) * block_bytes // size)):
            if len(under_way) == self._landing.num_slots:
                self._finish(under_way.popleft(), check)
                self._await_free(check)
            here = [
                (self._pool + blocks[part.nth] * block_bytes + part.offset, part.num_bytes)
                for part in doorbell.fragments(piece, block_bytes, len(blocks))
            ]
            there = self._landing.address + piece % self._landing.num_slots * doorbell.SLOT_BYTES
            under_way.append(self._agent.write(self._sink, _onto(here, there)))
        while under_way:
            self._finish(under_way.popleft(), check)

    def _finish(self, write: int, check: Callable[[], None]) -> None:
        """See a write through, and say so."""
        patience = Patience(_STALL_S)
        while not any(self._agent.is_done(write) for _ in patience.rounds):
            check()
            if self._hearing.poll(0):
                raise wire.WireError("the sink hung up, or spoke out of turn")
            patience.wait()
        self._connection.sendall(doorbell.WRITTEN)

    def _await_free(self, check: Callable[[], None]) -> None:
        """Let the other writes go on until the sink has copied a piece away."""
        patience = Patience(_STALL_S)
        while not self._hearing.poll(0):
            check()
            self._agent.progress()
            patience.wait()
        doorbell.hear(self._connection, doorbell.FREE)


def _onto(pieces: Sequence[tuple[int, int]], target: int) -> list[tuple[int, int, int]]:
    """Source address, target address and size of pieces that are written one after the other."""
    starts = accumulate((size for _, size in pieces), initial=target)
    return [(address, start, size) for (address, size), start in zip(pieces, starts, strict=False)]
