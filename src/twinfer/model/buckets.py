"""The few shapes that steps of decoding are padded to, so that each has to be recorded once only."""

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass

BATCHES = (1, 2, 4, 8, 16, 24, 32, 48, 64, 96, 128, 192, 256)
_SMALLEST_CONTEXT = 256
"""Positions. Shorter contexts are padded to it: their keys cost little next to the weights."""
_SPARE = 16_384
"""Positions of a whole step that may be read for nothing."""
_MOST_PADDING = 3
"""Else so many times the positions that there are. One long sequence among many short ones goes beyond it."""


@dataclass(frozen=True, slots=True)
class Bucket:
    """A step's shape: so many sequences of one token each, with so many blocks each."""

    sequences: int
    blocks: int


@dataclass(frozen=True, slots=True)
class Buckets:
    """All shapes there are; both sides ascend.

    Attributes:
        sequences: numbers of sequences.
        blocks: numbers of blocks; the last is that of the longest sequence.
        spare: blocks that any step may have in all, however few of them its sequences fill.
    """

    sequences: tuple[int, ...]
    blocks: tuple[int, ...]
    spare: int

    def choose(self, blocks: Sequence[int]) -> Bucket | None:
        """The smallest shape that holds sequences of so many blocks; ``None`` where none does, or hardly full."""
        at, among = bisect_left(self.sequences, len(blocks)), bisect_left(self.blocks, max(blocks))
        if at == len(self.sequences) or among == len(self.blocks):
            return None
        found = Bucket(self.sequences[at], self.blocks[among])
        is_full = found.sequences * found.blocks <= max(self.spare, _MOST_PADDING * sum(blocks))
        return found if is_full else None


def buckets_for(max_context_tokens: int, block_tokens: int) -> Buckets:
    """Contexts double from one bucket to the next, up to exactly the longest."""
    longest = -(-max_context_tokens // block_tokens)
    blocks = [max(1, _SMALLEST_CONTEXT // block_tokens)]
    while blocks[-1] < longest:
        blocks.append(2 * blocks[-1])
    return Buckets(BATCHES, (*blocks[:-1], longest), _SPARE // block_tokens)
