"""The prefix cache as sequences use it: found by content, tenant, and whose numbers it holds.

1. A sequence finds blocks of the engine's own numeric provenance. One that may build on another provenance's KV finds,
   block by block, the engine's own first, and else those of the chain for that mixture.
2. Once it holds a foreign block, or was handed one, all its later blocks depend on it: they are published under the
   mixture's chain, and never under the engine's own.
"""

from twinfer.core.block_hash import BlockHasher
from twinfer.engine.sequence import TokenSequence
from twinfer.kv.block_pool import BlockPool


class PrefixCache:
    """Finds and publishes full blocks of one engine."""

    def __init__(self, pool: BlockPool, hasher: BlockHasher) -> None:
        self.pool = pool
        self.block_tokens = hasher.block_tokens
        self._own = hasher

    def hold(self, sequence: TokenSequence, num_tokens: int) -> list[int]:
        """Hold the longest run of full blocks here within the first ``num_tokens`` tokens."""
        findable = num_tokens // self.block_tokens
        wanted = own = sequence.block_hashes(findable, self._own)
        if sequence.foreign:
            mixed = sequence.block_hashes(findable, self._own.after(sequence.foreign))
            wanted = [ours if self.pool.is_resident(ours) else theirs for ours, theirs in zip(own, mixed, strict=True)]
        held = self.pool.match(wanted, findable)
        sequence.mixed = wanted[: len(held)] != own[: len(held)]
        sequence.num_published = len(held)
        return held

    def pin(self, sequence: TokenSequence, now: float) -> None:
        """Keep the beginnings of a computed prompt that the request names; once. Each keeps whole blocks."""
        if sequence.pinned_tokens is not None:
            return
        hasher = self._own.after(sequence.foreign) if sequence.mixed else self._own
        count = 0
        for wanted in sequence.request.pins:
            hashes = sequence.block_hashes(wanted.num_tokens // self.block_tokens, hasher)
            count = max(count, self.pool.pin(hashes, sequence.request.tenant, now + wanted.ttl_s))
        sequence.pinned_tokens = count * self.block_tokens

    def publish(self, sequence: TokenSequence) -> None:
        """Make the full blocks findable that the sequence computed or was handed since the last call."""
        num_full = sequence.num_computed // self.block_tokens
        if num_full > sequence.num_published:
            hasher = self._own.after(sequence.foreign) if sequence.mixed else self._own
            hashes = sequence.block_hashes(num_full, hasher)
            for index in range(sequence.num_published, num_full):
                self.pool.publish(sequence.blocks[index], hashes[index])
            sequence.num_published = num_full
