"""The sink's end: asks, and receives straight into the destinations.

A big pull is cut into pieces of about a MiB that are dealt out over several connections, its lanes. The first lane is
the caller's thread, which also hashes what has landed, in order; the others run on helper threads. A connection
serves one pull at a time and goes back to its peer afterwards; after a failure or a fence it is closed, and the next
pull opens another.
"""

import contextlib
import queue
import socket
import ssl
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import NamedTuple

from twinfer.core.address import host_port
from twinfer.core.capabilities import Endpoint
from twinfer.core.errors import ConfigError, TransportError
from twinfer.core.ids import HandoffId
from twinfer.tls.credentials import Credentials, tls_reason
from twinfer.transport.base import CONNECT_TIMEOUT_S, TransportCapabilities, check_destinations
from twinfer.transport.digest import Hasher, new_hasher
from twinfer.transport.gate import Pace, PullGate, RunningPull
from twinfer.transport.listener import cut
from twinfer.transport.tcp import flow, wire
from twinfer.transport.tcp.meeting import dial, is_fresh
from twinfer.transport.throttle import unlimited

_PIECE_BYTES = 1 << 20
_MAX_PIECE_BLOCKS = 1024
_MAX_HELPERS = 16


class TcpPeer:
    """Open connections to one source that no pull uses now."""

    def __init__(
        self, endpoint: Endpoint, block_bytes: int, max_idle: int, credentials: Credentials | None = None
    ) -> None:
        self.endpoint = endpoint
        self.block_bytes = block_bytes
        self._max_idle = max_idle
        self._credentials = credentials
        self._lock = threading.Lock()
        self._idle: list[socket.socket] = []
        self._closed = False

    def take(self, timeout_s: float, own: Callable[[socket.socket], object]) -> socket.socket:
        """An idle connection, or a new one. ``own`` takes it over before anything can wait, so that it can be cut.

        Raises:
            WireError: this peer is closed, what listens there is no source of this cluster, or its blocks have
                another size.
            OSError: nothing listens there, or not in time.
        """
        if (idle := self._take_idle()) is not None:
            own(idle)
            return idle
        deadline = time.monotonic() + timeout_s
        try:
            address = host_port(self.endpoint.address)
        except ConfigError as error:
            raise wire.WireError(str(error)) from error
        connection = dial(address, self._credentials, deadline, own)
        try:
            theirs = wire.receive_greeting(connection, deadline).block_bytes
        except ssl.SSLError as error:
            # In TLS 1.3 a client learns only by reading that its certificate was refused.
            raise wire.WireError(f"it does not take our certificate: {tls_reason(error)}") from error
        if theirs != self.block_bytes:
            raise wire.WireError(f"it has blocks of {theirs} bytes, not {self.block_bytes}")
        return connection

    def _take_idle(self) -> socket.socket | None:
        """One that its source has not closed meanwhile."""
        with self._lock:
            if self._closed:
                raise wire.WireError("its connection is closed")
            while self._idle:
                connection = self._idle.pop()
                if is_fresh(connection):
                    return connection
                connection.close()
        return None

    def give(self, connection: socket.socket) -> None:
        """Take back a connection on which nothing is under way."""
        with self._lock:
            if not self._closed and len(self._idle) < self._max_idle:
                self._idle.append(connection)
                return
        connection.close()

    def close(self) -> None:
        """Close what is idle; connections in use follow when their pulls end."""
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()


class TcpSink:
    """Pulls over a few connections per source.

    Args:
        connections: lanes of a big pull.
        pace: slows the link down, for experiments.
        credentials: for TLS; then only workers of the cluster are asked.
    """

    def __init__(self, connections: int = 1, pace: Pace = unlimited, credentials: Credentials | None = None) -> None:
        self._connections = connections
        self._credentials = credentials
        self._pace = pace
        self._gate = PullGate()
        self._helpers = ThreadPoolExecutor(_MAX_HELPERS, thread_name_prefix="kv-tcp-pull")

    @property
    def capabilities(self) -> TransportCapabilities:
        """What this transport can do."""
        return wire.capabilities(encrypted=self._credentials is not None)

    def connect(self, endpoint: Endpoint, block_bytes: int) -> TcpPeer:
        """Open a first connection; see ``KVSink``."""
        peer = TcpPeer(endpoint, block_bytes, self._connections, self._credentials)
        opened: list[socket.socket] = []
        try:
            peer.give(peer.take(CONNECT_TIMEOUT_S, opened.append))
        except (OSError, wire.WireError) as error:
            for connection in opened:
                connection.close()
            raise TransportError(f"the KV source at {endpoint.address} cannot be used: {error}") from error
        return peer

    def admit(self, handoff: HandoffId) -> None:
        """Bytes of this handoff may land."""
        self._gate.admit(handoff)

    def pull(
        self,
        peer: TcpPeer,
        handoff: HandoffId,
        source_blocks: Sequence[int],
        destinations: Sequence[memoryview],
        deadline: float,
        *,
        digest: bool = True,
    ) -> int:
        """Receive into the destinations; see ``KVSink``."""
        check_destinations(source_blocks, destinations, peer)
        if len(source_blocks) > wire.MAX_BLOCKS:
            raise ValueError(f"a pull takes {wire.MAX_BLOCKS} blocks at most, not {len(source_blocks)}")
        with self._gate.run(handoff, peer.endpoint.address, deadline) as pull:
            transfer = _Transfer(peer, handoff, pull, self._pace, new_hasher(digest=digest))
            pieces = _cut(source_blocks, destinations, peer.block_bytes)
            return transfer.run(pieces, self._connections, self._helpers)

    def fence(self, handoff: HandoffId) -> None:
        """Nothing of this handoff lands after this returns."""
        self._gate.fence(handoff)

    def close(self) -> None:
        """Fence everything, and end the helpers."""
        self._gate.close()
        self._helpers.shutdown()


class _Piece(NamedTuple):
    """Consecutive blocks of a pull."""

    number: int
    blocks: Sequence[int]
    destinations: Sequence[memoryview]


def _cut(blocks: Sequence[int], destinations: Sequence[memoryview], block_bytes: int) -> list[_Piece]:
    step = max(1, min(_MAX_PIECE_BLOCKS, _PIECE_BYTES // block_bytes))
    starts = range(0, len(blocks), step)
    return [_Piece(i, blocks[s : s + step], destinations[s : s + step]) for i, s in enumerate(starts)]


class _Transfer:
    """One pull. It returns or raises only when all its lanes have ended, so that nothing can land afterwards."""

    def __init__(self, peer: TcpPeer, handoff: HandoffId, pull: RunningPull, pace: Pace, hasher: Hasher) -> None:
        self._digest = _OrderedDigest(hasher)
        self._peer = peer
        self._handoff = handoff
        self._pull = pull
        self._pace = pace
        self._connections: list[socket.socket] = []
        self._landed: queue.SimpleQueue[_Piece | None] = queue.SimpleQueue()
        pull.when_stopped(lambda: self._landed.put(None))

    def run(self, pieces: Sequence[_Piece], max_lanes: int, helpers: ThreadPoolExecutor) -> int:
        """Bring all pieces; the digest over them."""
        digest, whole = self._digest, False
        lanes = [pieces[i::max_lanes] for i in range(min(max_lanes, len(pieces)))]
        futures = [helpers.submit(self._bring, lane, self._landed.put) for lane in lanes[1:]]
        try:
            for lane in lanes[:1]:
                self._bring(lane, digest.add)
            while digest.num_pieces < len(pieces):
                digest.add(self._next_landed())
            self._pull.finish()
            whole = True
        finally:
            if not whole:
                self._pull.fail("it was interrupted")
                _end(futures)
            for connection in self._connections:
                self._peer.give(connection) if whole else connection.close()
        return digest.value()

    def _next_landed(self) -> _Piece:
        with contextlib.suppress(queue.Empty):
            piece = self._landed.get(timeout=self._pull.seconds_left())
            if piece is not None:
                return piece
        raise self._pull.fail("its deadline passed")

    def _bring(self, lane: Sequence[_Piece], landed: Callable[[_Piece], object]) -> None:
        """Receive these pieces over one connection; a failure stops the other lanes too."""
        try:
            timeout_s = min(CONNECT_TIMEOUT_S, self._pull.seconds_left())
            connection = self._peer.take(timeout_s, self._own)
            self._ask(connection, lane)
            for piece in lane:
                self._receive(connection, list(piece.destinations))
                landed(piece)
        except TimeoutError as error:
            raise self._pull.fail("its deadline passed, or the peer hangs") from error
        except (OSError, wire.WireError) as error:
            raise self._pull.fail(str(error)) from error

    def _own(self, connection: socket.socket) -> None:
        self._connections.append(connection)
        self._pull.when_stopped(lambda: cut(connection))

    def _ask(self, connection: socket.socket, lane: Sequence[_Piece]) -> None:
        blocks = tuple(block for piece in lane for block in piece.blocks)
        connection.settimeout(self._pull.seconds_left())
        wire.send_request(connection, wire.Request(self._handoff, blocks))
        deadline = time.monotonic() + self._pull.seconds_left()
        refusal = wire.receive_accept(connection, len(blocks) * self._peer.block_bytes, deadline)
        if refusal is not None:
            raise self._pull.fail(f"the source refused, {refusal}")

    def _receive(self, connection: socket.socket, views: list[memoryview]) -> None:
        first = 0
        while first < len(views):
            connection.settimeout(self._pull.seconds_left())
            received = flow.receive_some(connection, views, first)
            if received == 0:
                raise wire.WireError("the source broke off")
            first = flow.advance(views, first, received)
            self._pace(received, self._pull)


class _OrderedDigest:
    """Hashes pieces in their order, whatever the order in which they land."""

    def __init__(self, hasher: Hasher) -> None:
        self.num_pieces = 0
        self._hasher = hasher
        self._early: dict[int, _Piece] = {}

    def add(self, piece: _Piece) -> None:
        """A piece has landed: hash it and those that waited for it."""
        self._early[piece.number] = piece
        while (following := self._early.pop(self.num_pieces, None)) is not None:
            for view in following.destinations:
                self._hasher.update(view)
            self.num_pieces += 1

    def value(self) -> int:
        """Over all pieces added."""
        return self._hasher.intdigest()


def _end(futures: Sequence[Future[None]]) -> None:
    """Return when none of them runs or will; their errors are the one that is raised already."""
    wait([future for future in futures if not future.cancel()])
