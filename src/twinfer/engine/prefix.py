"""The prefix cache as sequences use it: found by content, tenant, and whose numbers it holds.

1. A sequence finds blocks of the engine's own numeric provenance. One that may build on another provenance's KV finds,
   block by block, the engine's own first, and else those of the chain for that mixture.
2. Once it holds a foreign block, or was handed one, all its later blocks depend on it: they are published under the
   mixture's chain, and never under the engine's own.
3. What the pool does not have may be in the host tier: a sequence holds it there until it is brought back.
"""

from collections.abc import Sequence

from twinfer.core.block_hash import BlockHash, BlockHasher
from twinfer.engine.sequence import TokenSequence
from twinfer.kv.block_pool import BlockPool, Match
from twinfer.kv.host_tier import HostHold, HostTier


class PrefixCache:
    """Finds and publishes full blocks of one engine.

    Attributes:
        host: the tier below the pool, if there is one.
    """

    def __init__(self, pool: BlockPool, hasher: BlockHasher) -> None:
        self.pool = pool
        self.host: HostTier | None = None
        self.block_tokens = hasher.block_tokens
        self._own = hasher

    def hold(self, sequence: TokenSequence, num_tokens: int) -> list[int]:
        """Hold the longest run of full blocks here within the first ``num_tokens`` tokens."""
        findable = num_tokens // self.block_tokens
        wanted = self._wanted(sequence, findable)
        held = self.pool.match(wanted, findable)
        sequence.mixed = wanted[: len(held)] != sequence.block_hashes(len(held), self._own)
        sequence.num_published = len(held)
        return held

    def look(self, sequence: TokenSequence, num_tokens: int) -> Match:
        """What :meth:`hold` would hold; all stays as it is."""
        findable = num_tokens // self.block_tokens
        return self.pool.look(self._wanted(sequence, findable), findable)

    def hold_on_host(self, sequence: TokenSequence, start: int, end: int, until: float) -> HostHold | None:
        """Hold in the host tier what follows the blocks ``[0, start)`` that a sequence holds, up to block ``end``."""
        if self.host is None or start >= end:
            return None
        return self.host.hold(self._hashes(sequence, end)[start:], until)

    def count_on_host(self, sequence: TokenSequence, start: int, end: int) -> int:
        """Blocks that :meth:`hold_on_host` would hold."""
        return 0 if self.host is None else self.host.count_match(self._hashes(sequence, end)[start:])

    def pin(self, sequence: TokenSequence, now: float) -> None:
        """Keep the beginnings of a computed prompt that the request names; once. Each keeps whole blocks."""
        if sequence.pinned_tokens is not None:
            return
        count = 0
        for wanted in sequence.request.pins:
            hashes = self._hashes(sequence, wanted.num_tokens // self.block_tokens)
            count = max(count, self.pool.pin(hashes, sequence.request.tenant, now + wanted.ttl_s))
        sequence.pinned_tokens = count * self.block_tokens

    def publish(self, sequence: TokenSequence) -> None:
        """Make the full blocks findable that the sequence computed or was handed since the last call."""
        num_full = sequence.num_computed // self.block_tokens
        if num_full > sequence.num_published:
            hashes = self._hashes(sequence, num_full)
            for index in range(sequence.num_published, num_full):
                self.pool.publish(sequence.blocks[index], hashes[index], sequence.request.tenant)
            sequence.num_published = num_full

    def _wanted(self, sequence: TokenSequence, num_blocks: int) -> Sequence[BlockHash]:
        """What the first blocks of a sequence may be found under."""
        own = sequence.block_hashes(num_blocks, self._own)
        if not sequence.foreign:
            return own
        mixed = sequence.block_hashes(num_blocks, self._own.after(sequence.foreign))
        return [ours if self.pool.is_resident(ours) else theirs for ours, theirs in zip(own, mixed, strict=True)]

    def _hashes(self, sequence: TokenSequence, num_blocks: int) -> Sequence[BlockHash]:
        """What the first blocks of a sequence are published under."""
        hasher = self._own.after(sequence.foreign) if sequence.mixed else self._own
        return sequence.block_hashes(num_blocks, hasher)
