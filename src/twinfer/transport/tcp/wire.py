"""The bytes on a connection, little-endian, each header with a fixed and each body with a bounded length.

    source -> sink   greeting   "TWK1"  block_bytes: u64  num_blocks: u64
    sink -> source   request    "TWQ1"  id_bytes: u16  count: u32      then the handoff id, then count x u32 blocks
    source -> sink   answer     "TWA1"  status: u16  num_bytes: u64    then the blocks' bytes, or a reason in words

A connection carries one request at a time. Whoever reads something else closes it. ``num_bytes`` of an accepted
request is count x block_bytes. A source that stops half-way, since its offer was released, closes the connection.
"""

import ipaddress
import socket
import struct
from collections.abc import Sequence
from typing import NamedTuple

from twinfer.core.ids import HandoffId
from twinfer.transport.base import TransportCapabilities

MAX_BLOCKS = 1 << 16
MAX_ID_BYTES = 64
MAX_REASON_BYTES = 512
MAX_IOVECS = 1024
"""Linux's IOV_MAX."""

TCP_CAPABILITIES = TransportCapabilities(
    name="tcp",
    direction="pull",
    one_sided=False,
    cancel_is_fence=True,
    encrypted=False,
    restricts_reads=True,
    memory_kinds=("host",),
    max_descriptors=MAX_BLOCKS,
)

_GREETING = struct.Struct("<4sQQ")
_REQUEST = struct.Struct("<4sHI")
_ANSWER = struct.Struct("<4sHQ")
_STATUS_OK = 0
_STATUS_REFUSED = 1


class WireError(Exception):
    """What was read is not what must come here. Raised and caught within this package."""


class Request(NamedTuple):
    """These blocks, offered under this handoff."""

    handoff: HandoffId
    blocks: tuple[int, ...]


class Greeting(NamedTuple):
    """The pool behind a connection."""

    block_bytes: int
    num_blocks: int


def is_loopback(host: str) -> bool:
    """Whether only processes of this machine can be behind that name."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def send_greeting(connection: socket.socket, greeting: Greeting) -> None:
    """Introduce the source."""
    connection.sendall(_GREETING.pack(b"TWK1", *greeting))


def receive_greeting(connection: socket.socket) -> Greeting:
    """Read whom we reached."""
    magic, *numbers = _GREETING.unpack(_receive_exactly(connection, _GREETING.size))
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


def receive_request(connection: socket.socket, stall_s: float) -> Request | None:
    """The next request, waiting for it as long as it takes; ``None`` when the sink has left.

    Once it has begun, and for the answer, the connection's timeout is ``stall_s``.

    Raises:
        WireError: something else came.
        OSError: the connection broke, or the rest of the request did not come.
    """
    connection.settimeout(None)
    begin = connection.recv(_REQUEST.size)
    if not begin:
        return None
    connection.settimeout(stall_s)
    magic, id_bytes, count = _REQUEST.unpack(begin + _receive_exactly(connection, _REQUEST.size - len(begin)))
    if magic != b"TWQ1" or id_bytes > MAX_ID_BYTES or not 0 < count <= MAX_BLOCKS:
        raise WireError("it sent no request of this version")
    body = _receive_exactly(connection, id_bytes + 4 * count)
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


def receive_accept(connection: socket.socket, num_bytes: int) -> str | None:
    """``None`` when exactly so many bytes follow, else the source's reason for refusing."""
    magic, status, length = _ANSWER.unpack(_receive_exactly(connection, _ANSWER.size))
    if magic == b"TWA1" and status == _STATUS_OK and length == num_bytes:
        return None
    if magic == b"TWA1" and status == _STATUS_REFUSED and length <= MAX_REASON_BYTES:
        return _receive_exactly(connection, length).decode(errors="replace")
    raise WireError(f"it answered with something else than the {num_bytes} bytes asked for")


def advance(views: list[memoryview], first: int, num_bytes: int) -> int:
    """Strike the next ``num_bytes`` off ``views[first:]``; returns the new first, whose view is cut at its begin."""
    while num_bytes:
        size = views[first].nbytes
        if num_bytes < size:
            views[first] = views[first][num_bytes:]
            return first
        num_bytes -= size
        first += 1
    return first


def iovecs(views: Sequence[memoryview], first: int, max_bytes: int) -> Sequence[memoryview]:
    """As many views from ``first`` on as one system call should take: they are set up anew for each."""
    count = max(1, min(MAX_IOVECS, max_bytes // max(1, views[-1].nbytes)))
    return views[first : first + count]


def _receive_exactly(connection: socket.socket, num_bytes: int) -> bytes:
    buffer = bytearray(num_bytes)
    view, got = memoryview(buffer), 0
    while got < num_bytes:
        count = connection.recv_into(view[got:])
        if count == 0:
            raise WireError(f"it broke off after {got} of {num_bytes} bytes")
        got += count
    return bytes(buffer)
