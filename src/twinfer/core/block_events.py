"""Which KV blocks a worker came to have and lost, for whoever keeps account of it elsewhere."""

import msgspec

from twinfer.core.block_hash import HASH_BYTES, BlockHash


class BlockEvents(msgspec.Struct, frozen=True, omit_defaults=True):
    """Changes in order, numbered on from the worker's start; or all that it has.

    Hashes are those of ``core/block_hash.py``: without the cluster's key they cannot be told from random numbers, nor
    can one tenant's be found from another's prompts.

    Args:
        first: number of the first change; of the next one to come, if this is everything.
        hashes: of the blocks, one after the other.
        gone: for each a byte: 0 for a block that can be found from now on, 1 for one that cannot any more.
        everything: no change, but all blocks there are; what was known before does not count.
    """

    first: int
    hashes: bytes = b""
    gone: bytes = b""
    everything: bool = False

    @property
    def next(self) -> int:
        """Number of the change that follows."""
        return self.first if self.everything else self.first + len(self.gone)

    @property
    def is_sound(self) -> bool:
        """Whether there is a byte for each hash, and no part of a hash is missing."""
        count, rest = divmod(len(self.hashes), HASH_BYTES)
        return not rest and (self.everything or count == len(self.gone))

    def blocks(self) -> list[BlockHash]:
        """The hashes, one by one."""
        return [self.hashes[at : at + HASH_BYTES] for at in range(0, len(self.hashes), HASH_BYTES)]
