"""Shared memory between two processes of one machine: the source passes its pool's memfd over a Unix socket.

1. The source listens on an abstract Unix socket, or on a socket file in a private directory.
2. A sink connects. Each side asks the kernel for the other's user (``SO_PEERCRED``) and talks to its own only.
3. The source sends the greeting with the sealed memfd; the sink checks size and seals and maps it for reading, once.
4. A pull is a copy out of that mapping; the source's processor has no part in it, and it outlives the source.
5. The connection stays open without a byte on it. Its end tells each side that the other is gone.

Trust: a connected sink sees the whole pool, of all tenants; ``offer`` and ``release`` restrict nothing. Use it between
processes that hold the same cluster key and run as the same user; elsewhere use TCP.
"""

import contextlib
import logging
import mmap
import os
import secrets
import socket
import struct
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

from twinfer.core.capabilities import Endpoint
from twinfer.core.errors import ConfigError, TransportError
from twinfer.core.ids import HandoffId
from twinfer.transport.base import CONNECT_TIMEOUT_S, SourceMemory, TransportCapabilities, check_destinations
from twinfer.transport.digest import copy_blocks, new_hasher
from twinfer.transport.gate import Pace, PullGate
from twinfer.transport.host import host_id
from twinfer.transport.listener import Listener, Settle
from twinfer.transport.throttle import unlimited

if sys.platform == "linux":
    import fcntl

SHM_CAPABILITIES = TransportCapabilities(
    name="shm",
    direction="pull",
    one_sided=True,
    cancel_is_fence=True,
    encrypted=False,
    restricts_reads=False,
    memory_kinds=("host",),
    max_descriptors=1 << 20,
)

_GREETING = struct.Struct("<4sQQ")
"""Magic, block_bytes, num_blocks."""
_MAGIC = b"TWS1"
_CREDENTIALS = struct.Struct("iII")
"""struct ucred: process, user, group."""

logger = logging.getLogger(__name__)


class ShmSource:
    """Passes one pool's file to the processes of the same user.

    Args:
        directory: where the socket file goes; it must be this user's alone. ``None`` takes an abstract socket, which
            is no file but is visible in the whole network namespace.
    """

    capabilities = SHM_CAPABILITIES

    def __init__(self, directory: Path | None = None) -> None:
        self._directory = directory
        self._path: Path | None = None
        self._listener: Listener | None = None

    def start(self, memory: SourceMemory) -> Endpoint:
        """Listen; see ``KVSource``."""
        if memory.fd is None or sys.platform != "linux":
            raise ConfigError("shared memory needs Linux and a pool in a memfd: set link.transport to 'tcp'")
        fd, greeting = memory.fd, _GREETING.pack(_MAGIC, memory.block_bytes, memory.num_blocks)
        name = f"twinfer-kv-{secrets.token_hex(8)}"
        server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            if self._directory is None:
                server.bind(f"\0{name}")
                address = f"@{name}"
            else:
                address = str(self._directory / name)
                server.bind(address)
                self._path = Path(address)
                self._path.chmod(0o600)
            server.listen()
        except OSError as error:
            server.close()
            raise ConfigError(
                f"no KV socket in {self._directory}: {error}; name a short, writable directory"
            ) from error
        self._listener = Listener(server, lambda connection, settle: _serve(connection, settle, fd, greeting), "kv-shm")
        return Endpoint("shm", address, host_id())

    def offer(self, handoff: HandoffId, blocks: Sequence[int]) -> None:
        """Nothing to do: connected sinks can read every block."""

    def release(self, handoff: HandoffId) -> None:
        """Nothing to do: digests, or the source when asked, find out what was read too late."""

    def close(self) -> None:
        """Hang up on all sinks; mappings they have live on."""
        if self._listener is not None:
            self._listener.close()
        if self._path is not None:
            self._path.unlink(missing_ok=True)


class ShmPeer:
    """A source's pool, mapped for reading."""

    def __init__(self, endpoint: Endpoint, block_bytes: int, connection: socket.socket, pool: mmap.mmap) -> None:
        self.endpoint = endpoint
        self.block_bytes = block_bytes
        self.num_blocks = len(pool) // block_bytes
        self._connection = connection
        self._pool = pool
        self._lock = threading.Lock()

    def view(self) -> memoryview | None:
        """The pool; ``None`` when the source is gone or this is closed. Keeps the mapping alive."""
        with self._lock:
            try:
                self._connection.recv(1, socket.MSG_PEEK)  # nothing ever comes, so that only the end can be read
            except BlockingIOError:
                return memoryview(self._pool)
            except OSError:
                return None
        return None

    def close(self) -> None:
        """Hang up and unmap, the latter with the last running pull."""
        with self._lock:
            self._connection.close()
            with contextlib.suppress(BufferError):
                self._pool.close()


class ShmSink:
    """Maps pools of other processes and copies out of them."""

    capabilities = SHM_CAPABILITIES

    def __init__(self, pace: Pace = unlimited) -> None:
        self._pace = pace
        self._gate = PullGate()

    def connect(self, endpoint: Endpoint, block_bytes: int) -> ShmPeer:
        """Map the source's pool; see ``KVSink``."""
        address = endpoint.address
        name = f"\0{address[1:]}" if address.startswith("@") else address
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connection.settimeout(CONNECT_TIMEOUT_S)
            connection.connect(name)
            pool = _receive_pool(connection, address, block_bytes)
            connection.setblocking(False)
        except OSError as error:
            connection.close()
            raise TransportError(f"the KV source at {address} cannot be reached: {error}") from error
        except TransportError:
            connection.close()
            raise
        return ShmPeer(endpoint, block_bytes, connection, pool)

    def admit(self, handoff: HandoffId) -> None:
        """Bytes of this handoff may land."""
        self._gate.admit(handoff)

    def pull(
        self,
        peer: ShmPeer,
        handoff: HandoffId,
        source_blocks: Sequence[int],
        destinations: Sequence[memoryview],
        deadline: float,
        *,
        digest: bool = True,
    ) -> int:
        """Copy out of the mapping; see ``KVSink``."""
        check_destinations(source_blocks, destinations, peer)
        with self._gate.run(handoff, peer.endpoint.address, deadline) as pull:
            pool = peer.view()
            if pool is None:
                raise pull.fail("the source is gone, or the connection closed")
            outside = next((block for block in source_blocks if not 0 <= block < peer.num_blocks), None)
            if outside is not None:
                raise pull.fail(f"block {outside} is not in its pool of {peer.num_blocks}")
            return copy_blocks(pool, source_blocks, destinations, pull, self._pace, new_hasher(digest=digest))

    def fence(self, handoff: HandoffId) -> None:
        """Nothing of this handoff lands after this returns."""
        self._gate.fence(handoff)

    def close(self) -> None:
        """Fence everything."""
        self._gate.close()


def _serve(connection: socket.socket, settle: Settle, fd: int, greeting: bytes) -> None:
    """Pass the file to one sink, and notice when it leaves."""
    try:
        if not _is_same_user(connection):
            logger.warning("a process of another user asked for the KV pool and was turned away")
            return
        settle()
        socket.send_fds(connection, [greeting], [fd])
        if connection.recv(1):
            logger.warning("a sink sent bytes over a connection that carries none; it is closed")
    except OSError as error:
        logger.info("a sink of the KV pool left: %s", error)


def _receive_pool(connection: socket.socket, address: str, block_bytes: int) -> mmap.mmap:
    if not _is_same_user(connection):
        raise TransportError(f"the KV source at {address} runs as another user; it is not trusted")
    greeting, fds, _, _ = socket.recv_fds(connection, _GREETING.size, 1)
    try:
        if len(greeting) != _GREETING.size or len(fds) != 1 or greeting[:4] != _MAGIC:
            raise TransportError(f"what listens at {address} is no KV source of this version")
        _, theirs, num_blocks = _GREETING.unpack(greeting)
        if theirs != block_bytes:
            raise TransportError(f"the KV source at {address} has blocks of {theirs} bytes, not {block_bytes}")
        size = theirs * num_blocks
        # Without these seals the source could cut the file short under our mapping, and the next read would kill us.
        seals = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW
        if fcntl.fcntl(fds[0], fcntl.F_GET_SEALS) & seals != seals or os.fstat(fds[0]).st_size != size:
            raise TransportError(f"the KV pool of {address} is not sealed, or not of {size} bytes")
        return mmap.mmap(fds[0], size, prot=mmap.PROT_READ)
    finally:
        for fd in fds:
            os.close(fd)


def _is_same_user(connection: socket.socket) -> bool:
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    return bool(_CREDENTIALS.unpack(credentials)[1] == os.getuid())
