"""A pool's bytes onto a connection and off it, plain or encrypted, without a copy of ours in between.

A plain socket takes many pieces of memory in one system call. TLS takes and gives one record at a time, at most 16 KB
of one piece, so large pieces are what makes it fast: neighbouring blocks of the pool leave as one.
"""

import socket
import ssl
from collections.abc import Sequence

_MAX_RUN_BYTES = 8 << 20
_MAX_VIEWS = 128
"""In one system call, which sets all of them up anew."""


def runs(pool: memoryview, blocks: Sequence[int], block_bytes: int) -> list[memoryview]:
    """The bytes of these blocks, in order; consecutive ones in one piece."""
    max_blocks = max(1, _MAX_RUN_BYTES // block_bytes)
    views: list[memoryview] = []
    start = 0
    for end in range(1, len(blocks) + 1):
        if end < len(blocks) and blocks[end] == blocks[end - 1] + 1 and end - start < max_blocks:
            continue
        offset = blocks[start] * block_bytes
        views.append(pool[offset : offset + (end - start) * block_bytes])
        start = end
    return views


def send_some(connection: socket.socket, views: Sequence[memoryview], first: int) -> int:
    """Send from ``views[first]`` on, as much as goes at once; how many bytes went."""
    if isinstance(connection, ssl.SSLSocket):
        return connection.send(views[first])
    return connection.sendmsg(views[first : first + _MAX_VIEWS])


def receive_some(connection: socket.socket, views: Sequence[memoryview], first: int) -> int:
    """Receive into ``views[first]`` and the next, as much as is there; how many bytes came, 0 at the end."""
    if isinstance(connection, ssl.SSLSocket):
        return connection.recv_into(views[first], views[first].nbytes)
    return connection.recvmsg_into(views[first : first + _MAX_VIEWS])[0]


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
