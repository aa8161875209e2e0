"""One way from one source: an agent, the landing area it is written to, and a doorbell. One pull at a time uses it."""

import mmap
import secrets
import select
import socket
import time
from collections.abc import Sequence
from functools import partial

import numpy as np

from twinfer.core.capabilities import Endpoint
from twinfer.core.ids import HandoffId
from twinfer.transport.base import CONNECT_TIMEOUT_S
from twinfer.transport.digest import Hasher
from twinfer.transport.gate import Pace, RunningPull
from twinfer.transport.listener import cut
from twinfer.transport.nixl import doorbell
from twinfer.transport.nixl.agent import Agent, Patience
from twinfer.transport.nixl.library import Fabric
from twinfer.transport.tcp import wire
from twinfer.transport.tcp.meeting import is_fresh, prepare

_NUM_SLOTS = 4
"""Pieces under way at once."""
_STRIP_BYTES = 256 << 10
"""Copied, then hashed while it is still in the second-level cache."""
_STALL_S = 5.0
"""A piece that has not landed by then, or a request not answered, ends the pull, however late its deadline."""


class Lane:
    """Made before its source is known to be there, which ``prepare`` finds out. ``close`` must follow.

    Raises:
        TransportError: the endpoint's address is damaged.
        NixlError: there can be no agent.
    """

    def __init__(self, endpoint: Endpoint, block_bytes: int, fabric: Fabric) -> None:
        self._host, self._port, self._secret = doorbell.unseal(endpoint.address)
        self._block_bytes = block_bytes
        self._connection: socket.socket | None = None
        self._hearing = select.poll()
        self._area = mmap.mmap(-1, _NUM_SLOTS * doorbell.SLOT_BYTES)
        self._agent = Agent(f"twinfer-sink-{secrets.token_hex(8)}", fabric)
        self._landing = doorbell.Landing(self._agent.register(self._area), _NUM_SLOTS, self._agent.metadata())

    @property
    def is_fresh(self) -> bool:
        """Whether it can be used again: the source has not hung up meanwhile."""
        return self._connection is None or is_fresh(self._connection)

    def prepare(self, pull: RunningPull) -> None:
        """Be ready for this pull; the first time, reach the source, and see that NIXL works between the two.

        Raises:
            TransportError: the pull was stopped, or is late.
            WireError, NixlError, OSError: the source is not there, or not the one we mean.
        """
        first, connection = self._connection is None, self._connection
        if connection is None:
            timeout_s = min(CONNECT_TIMEOUT_S, pull.seconds_left())
            self._connection = connection = socket.create_connection((self._host, self._port), timeout_s)
            self._hearing.register(connection, select.POLLIN)
        pull.when_stopped(partial(cut, connection))
        if first:
            self._introduce(connection, pull)

    def run(
        self,
        handoff: HandoffId,
        blocks: Sequence[int],
        destinations: Sequence[memoryview],
        pull: RunningPull,
        pace: Pace,
        hasher: Hasher,
    ) -> int:
        """Bring the blocks; what the hasher makes of them. Raises as ``prepare`` does."""
        assert self._connection is not None
        timeout_s = min(_STALL_S, pull.seconds_left())
        self._connection.settimeout(timeout_s)
        wire.send_request(self._connection, wire.Request(handoff, tuple(blocks)))
        refusal = wire.receive_accept(self._connection, 0, time.monotonic() + timeout_s)
        if refusal is not None:
            raise wire.WireError(f"the source refused, {refusal}")
        num_pieces = -(-len(blocks) * self._block_bytes // doorbell.piece_bytes(self._block_bytes))
        for piece in range(num_pieces):
            self._await_written(self._connection, pull)
            self._land(piece, destinations, hasher, pull, pace)
            if piece + _NUM_SLOTS < num_pieces:
                self._connection.sendall(doorbell.FREE)
        return hasher.intdigest()

    def close(self) -> None:
        """Hang up, and destroy the agent."""
        if self._connection is not None:
            self._connection.close()
        self._agent.close()

    def _introduce(self, connection: socket.socket, pull: RunningPull) -> None:
        prepare(connection)
        connection.sendall(self._secret)
        theirs = wire.receive_greeting(connection, time.monotonic() + pull.seconds_left()).block_bytes
        if theirs != self._block_bytes:
            raise wire.WireError(f"it has blocks of {theirs} bytes, not {self._block_bytes}")
        doorbell.send_landing(connection, self._landing)
        self._await_written(connection, pull)
        if self._area[: doorbell.PROOF_BYTES] != doorbell.proof_of(self._secret):
            raise wire.WireError("what it wrote went elsewhere")

    def _await_written(self, connection: socket.socket, pull: RunningPull) -> None:
        """Let the source write, until it says that a piece is there."""
        patience = Patience(_STALL_S)
        while not self._hearing.poll(0):
            pull.check()
            for _ in patience.rounds:
                self._agent.progress()
            patience.wait()
        doorbell.hear(connection, doorbell.WRITTEN)

    def _land(
        self, piece: int, destinations: Sequence[memoryview], hasher: Hasher, pull: RunningPull, pace: Pace
    ) -> None:
        """Copy a piece to where it goes."""
        start = piece % _NUM_SLOTS * doorbell.SLOT_BYTES
        for nth, offset, size in doorbell.fragments(piece, self._block_bytes, len(destinations), _STRIP_BYTES):
            pull.check()
            strip = destinations[nth][offset : offset + size]
            landed = np.frombuffer(self._area, np.uint8, size, start)
            np.copyto(np.frombuffer(strip, np.uint8), landed)  # numpy releases the GIL meanwhile
            hasher.update(strip)
            start += size
            pace(size, pull)
