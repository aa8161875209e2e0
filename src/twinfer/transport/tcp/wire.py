"""The bytes on a connection, little-endian, each header with a fixed and each body with a bounded length.

    source -> sink   greeting   "TWK1"  block_bytes: u64  num_blocks: u64
    sink -> source   request    "TWQ1"  id_bytes: u16  count: u32      then the handoff id, then count x u32 blocks
    source -> sink   answer     "TWA1"  status: u16  num_bytes: u64    then the blocks' bytes, or a reason in words

A connection carries one request at a time. Whoever reads something else closes it. ``num_bytes`` of an accepted
request is count x block_bytes. A source that stops half-way, since its offer was released, closes the connection.
"""

import socket
import struct
import time
from typing import NamedTuple

from twinfer.core.ids import HandoffId
from twinfer.transport.base import TransportCapabilities

MAX_BLOCKS = 1 << 16
MAX_ID_BYTES = 64
MAX_REASON_BYTES = 512

_GREETING = struct.Struct("<4sQQ")
_REQUEST = struct.Struct("<4sHI")
_ANSWER = struct.Struct("<4sHQ")
_STATUS_OK = 0
_STATUS_REFUSED = 1


class WireError(Exception):
    """What was read is not what must come here. Raised and caught within this package."""


class StrangerError(WireError):
    """The peer is no worker of this cluster.

    Args:
        reason: ``certificate`` where there is no good one, ``role`` where it is not a worker's.
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class Request(NamedTuple):
    """These blocks, offered under this handoff."""

    handoff: HandoffId
    blocks: tuple[int, ...]


class Greeting(NamedTuple):
    """The pool behind a connection."""

    block_bytes: int
    num_blocks: int


def capabilities(*, encrypted: bool) -> TransportCapabilities:
    """Of plain TCP and of TLS, which differ in their name and in who can read along."""
    return TransportCapabilities(
        name="tcp+tls" if encrypted else "tcp",
        direction="pull",
        one_sided=False,
        cancel_is_fence=True,
        encrypted=encrypted,
        restricts_reads=True,
        memory_kinds=("host",),
        max_descriptors=MAX_BLOCKS,
    )


def send_greeting(connection: socket.socket, greeting: Greeting) -> None:
    """Introduce the source."""
    connection.sendall(_GREETING.pack(b"TWK1", *greeting))


def receive_greeting(connection: socket.socket, deadline: float) -> Greeting:
    """Read whom we reached."""
    magic, *numbers = _GREETING.unpack(_receive_exactly(connection, _GREETING.size, deadline))
    if magic != b"TWK1":
        raise WireError("it is no KV source of this version")
    return Greeting(*numbers)


def send_request(connection: socket.socket, request: Request) -> None:
    """Ask for blocks, whose numbers may come from a peer and be anything."""
    handoff, blocks = request.handoff.encode(), request.blocks
    for block in blocks:
        if not 0 <= block < 1 << 32:
            raise WireError(f"block {block} is not in any pool")
    header = _REQUEST.pack(b"TWQ1", len(handoff), len(blocks))
    connection.sendall(b"".join((header, handoff, struct.pack(f"<{len(blocks)}I", *blocks))))


def receive_request(connection: socket.socket, idle_s: float, stall_s: float) -> Request | None:
    """The next request, waiting ``idle_s`` for its begin; ``None`` when the sink has left or asks for nothing.

    The rest has to follow within ``stall_s``, which is the connection's timeout afterwards.

    Raises:
        WireError: something else came.
        OSError: the connection broke, or the rest of the request did not come.
    """
    connection.settimeout(idle_s)
    try:
        begin = connection.recv(_REQUEST.size)
    except TimeoutError:
        return None
    if not begin:
        return None
    deadline = time.monotonic() + stall_s
    magic, id_bytes, count = _REQUEST.unpack(begin + _receive_exactly(connection, _REQUEST.size - len(begin), deadline))
    if magic != b"TWQ1" or id_bytes > MAX_ID_BYTES or not 0 < count <= MAX_BLOCKS:
        raise WireError("it sent no request of this version")
    body = _receive_exactly(connection, id_bytes + 4 * count, deadline)
    connection.settimeout(stall_s)
    try:
        handoff = HandoffId(body[:id_bytes].decode())
    except UnicodeDecodeError as error:
        raise WireError("it sent a handoff id that is no text") from error
    return Request(handoff, struct.unpack_from(f"<{count}I", body, id_bytes))


def accept_header(num_bytes: int) -> bytes:
    """Opens an answer of that many bytes."""
    return _ANSWER.pack(b"TWA1", _STATUS_OK, num_bytes)


def refusal(reason: str) -> bytes:
    """A whole answer that says why not."""
    text = reason.encode()[:MAX_REASON_BYTES]
    return _ANSWER.pack(b"TWA1", _STATUS_REFUSED, len(text)) + text


def receive_accept(connection: socket.socket, num_bytes: int, deadline: float) -> str | None:
    """``None`` when exactly so many bytes follow, else the source's reason for refusing."""
    magic, status, length = _ANSWER.unpack(_receive_exactly(connection, _ANSWER.size, deadline))
    if magic == b"TWA1" and status == _STATUS_OK and length == num_bytes:
        return None
    if magic == b"TWA1" and status == _STATUS_REFUSED and length <= MAX_REASON_BYTES:
        return _receive_exactly(connection, length, deadline).decode(errors="replace")
    raise WireError(f"it answered with something else than the {num_bytes} bytes asked for")


def _receive_exactly(connection: socket.socket, num_bytes: int, deadline: float) -> bytes:
    """However slowly they drip in, the deadline (monotonic seconds) is for all of them."""
    buffer = bytearray(num_bytes)
    view, got = memoryview(buffer), 0
    while got < num_bytes:
        connection.settimeout(max(deadline - time.monotonic(), 1e-3))
        count = connection.recv_into(view[got:])
        if count == 0:
            raise WireError(f"it broke off after {got} of {num_bytes} bytes")
        got += count
    return bytes(buffer)
