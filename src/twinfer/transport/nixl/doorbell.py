"""What the two ends tell each other over a TCP connection beside NIXL, little-endian.

    sink -> source   knock     the secret
    source -> sink   greeting  as in ``transport.tcp.wire``
    sink -> source   landing   "TWL1"  address: u64  num_slots: u16  metadata_bytes: u16  digest: 16s   then metadata
    source -> sink   WRITTEN   the proof lies at the beginning of the landing area
    sink -> source   request   as in ``transport.tcp.wire``
    source -> sink   answer    as there, with no bytes, or a reason in words
    source -> sink   WRITTEN   for each piece, in order
    sink -> source   FREE      for each piece that was copied away, as long as other pieces wait for its slot

Seen as one stream of bytes, the blocks of a request are cut into pieces of ``piece_bytes``. Piece i is written to slot
i modulo ``num_slots`` of the landing area. Whoever reads something else, or has enough, closes the connection.
"""

import base64
import binascii
import contextlib
import socket
import struct
from collections.abc import Iterator
from hashlib import blake2b
from typing import NamedTuple

from twinfer.core.errors import TransportError
from twinfer.transport.tcp.wire import WireError

SECRET_BYTES = 32
PROOF_BYTES = 32
WRITTEN = b"W"
FREE = b"F"
SLOT_BYTES = 1 << 20
_MAX_FRAGMENTS = 1024
"""Descriptors in one transfer."""
_MAX_SLOTS = 1024
_MAX_METADATA_BYTES = 1 << 14
_LANDING = struct.Struct("<4sQHH16s")


class Landing(NamedTuple):
    """Where a source may write.

    Attributes:
        address: of the landing area, ``num_slots`` of ``SLOT_BYTES`` each.
        metadata: NIXL's, of the agent that owns it.
    """

    address: int
    num_slots: int
    metadata: bytes


class Fragment(NamedTuple):
    """Consecutive bytes of one block: which block of the request, from where, and how many."""

    nth: int
    offset: int
    num_bytes: int


def piece_bytes(block_bytes: int) -> int:
    """Size of all pieces but the last."""
    return min(SLOT_BYTES, _MAX_FRAGMENTS * block_bytes)


def fragments(piece: int, block_bytes: int, num_blocks: int, max_bytes: int = SLOT_BYTES) -> Iterator[Fragment]:
    """What a piece consists of, in order."""
    size = piece_bytes(block_bytes)
    begin, end = piece * size, min((piece + 1) * size, num_blocks * block_bytes)
    while begin < end:
        nth, offset = divmod(begin, block_bytes)
        length = min(block_bytes - offset, end - begin, max_bytes)
        yield Fragment(nth, offset, length)
        begin += length


def seal(host: str, port: int, secret: bytes) -> str:
    """The address of a source: ``host:port#secret``. Only its first part may be shown."""
    return f"{host}:{port}#{base64.urlsafe_b64encode(secret).decode()}"


def shown(address: str) -> str:
    """The part of an address that may appear in messages."""
    return address.partition("#")[0]


def unseal(address: str) -> tuple[str, int, bytes]:
    """Host, port and secret.

    Raises:
        TransportError: the address is damaged.
    """
    where, _, text = address.partition("#")
    host, _, port = where.rpartition(":")
    with contextlib.suppress(binascii.Error, ValueError):
        secret = base64.urlsafe_b64decode(text)
        if len(secret) == SECRET_BYTES:
            return host, int(port), secret
    raise TransportError(f"the address of the KV source at {where!r} is damaged; both workers must be of one version")


def proof_of(secret: bytes) -> bytes:
    """What a source writes first, to show that NIXL works between the two."""
    return blake2b(secret, digest_size=PROOF_BYTES, person=b"twinfer-proof").digest()


def send_landing(connection: socket.socket, landing: Landing) -> None:
    """Let the source write there."""
    connection.sendall(
        _LANDING.pack(b"TWL1", landing.address, landing.num_slots, len(landing.metadata), _digest(landing))
        + landing.metadata
    )


def receive_landing(connection: socket.socket) -> Landing:
    """Read where to write. NIXL takes damaged metadata for good, so a digest comes with it.

    Raises:
        WireError: something else came.
    """
    header = _receive(connection, _LANDING.size)
    magic, address, num_slots, size, digest = _LANDING.unpack(header)
    if magic != b"TWL1" or not 0 < num_slots <= _MAX_SLOTS or size > _MAX_METADATA_BYTES:
        raise WireError("it sent no landing area of this version")
    landing = Landing(address, num_slots, _receive(connection, size))
    if digest != _digest(landing):
        raise WireError("the description of its landing area is damaged")
    return landing


def hear(connection: socket.socket, expected: bytes) -> None:
    """Read one word.

    Raises:
        WireError: another came, or the end.
        OSError: none came in time.
    """
    said = connection.recv(1)
    if said != expected:
        raise WireError("it spoke out of turn" if said else "the other side broke off")


def _receive(connection: socket.socket, num_bytes: int) -> bytes:
    data = connection.recv(num_bytes, socket.MSG_WAITALL) if num_bytes else b""
    if len(data) != num_bytes:
        raise WireError(f"it broke off after {len(data)} of {num_bytes} bytes")
    return data


def _digest(landing: Landing) -> bytes:
    place = struct.pack("<QH", landing.address, landing.num_slots)
    return blake2b(place + landing.metadata, digest_size=16).digest()
