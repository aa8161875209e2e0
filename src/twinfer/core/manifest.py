"""What a source offers: chunks of KV with their digests, and the seal over all of them."""

from collections.abc import Iterable

import msgspec


class Chunk(msgspec.Struct, frozen=True, array_like=True):
    """Consecutive blocks of one sequence, all layers and heads.

    Args:
        index: position in the manifest, from 0; also the sequence number of the offer.
        first_block: index of the first block within the sequence.
        source_blocks: pool blocks of the source, in sequence order.
        digest: xxh3-64 over the bytes of these blocks, in order, computed when they became final; 0 where the commit
            does not rest on digests.
    """

    index: int
    first_block: int
    source_blocks: tuple[int, ...]
    digest: int


def root_digest(digests: Iterable[int]) -> bytes:
    """The root over all chunks, in manifest order: their 64-bit digests, concatenated."""
    return b"".join(digest.to_bytes(8, "little") for digest in digests)
