"""The digest of blocks, and the copy that computes it on the way. xxh3-64 finds accidents; it is never an identity."""

from collections.abc import Iterable, Sequence
from typing import Protocol

import numpy as np
from xxhash import xxh3_64

from twinfer.transport.base import SourceMemory
from twinfer.transport.gate import Pace, RunningPull

_STRIP_BYTES = 256 << 10
"""Copied, then hashed while it is still in the second-level cache."""


def digest_blocks(memory: SourceMemory, blocks: Iterable[int]) -> int:
    """xxh3-64 over the bytes of a pool's blocks, in order."""
    size, view = memory.block_bytes, memory.view
    return digest_views(view[block * size : (block + 1) * size] for block in blocks)


def digest_views(views: Iterable[memoryview]) -> int:
    """xxh3-64 over bytes, in order. Hashing large views releases the GIL."""
    hasher = xxh3_64()
    for view in views:
        hasher.update(view)
    return hasher.intdigest()


class Hasher(Protocol):
    """Takes bytes in order, and sums them up."""

    def update(self, data: memoryview, /) -> object:
        """Take in more."""
        ...

    def intdigest(self) -> int:
        """The sum of all so far."""
        ...


class _NoDigest:
    """Looks at nothing."""

    def update(self, data: memoryview, /) -> None:
        """Ignore."""

    def intdigest(self) -> int:
        """Always 0."""
        return 0


def new_hasher(*, digest: bool) -> Hasher:
    """A new one: xxh3-64, or none for callers that want no digest."""
    return xxh3_64() if digest else _NoDigest()


def copy_blocks(
    pool: memoryview,
    source_blocks: Sequence[int],
    destinations: Sequence[memoryview],
    pull: RunningPull,
    pace: Pace,
    hasher: Hasher,
) -> int:
    """Copy blocks of a mapped pool; the digest is taken of the destinations, after the copy.

    Raises:
        TransportError: the pull was fenced, or is late.
    """
    source = np.frombuffer(pool, np.uint8)
    for block, destination in zip(source_blocks, destinations, strict=True):
        target = np.frombuffer(destination, np.uint8)
        size = len(target)
        for start in range(0, size, _STRIP_BYTES):
            pull.check()
            strip = target[start : start + _STRIP_BYTES]
            offset = block * size + start
            np.copyto(strip, source[offset : offset + len(strip)])  # a slice assignment would keep the GIL
            hasher.update(strip.data)
            pace(len(strip), pull)
    return hasher.intdigest()
