"""The few shapes that steps of decoding are padded to, so that each has to be recorded once only."""

from bisect import bisect_left
from dataclasses import dataclass

BATCHES = (1, 2, 4, 8, 16, 24, 32, 48, 64, 96, 128, 192, 256)
_SMALLEST_CONTEXT = 256
"""Positions. Shorter contexts are padded to it: their keys cost little next to the weights."""


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
    """

    sequences: tuple[int, ...]
    blocks: tuple[int, ...]

    def choose(self, sequences: int, blocks: int) -> Bucket | None:
        """The smallest shape that holds so many sequences of so many blocks, or ``None`` where none does."""
        at, among = bisect_left(self.sequences, sequences), bisect_left(self.blocks, blocks)
        if at == len(self.sequences) or among == len(self.blocks):
            return None
        return Bucket(self.sequences[at], self.blocks[among])


def buckets_for(max_context_tokens: int, block_tokens: int) -> Buckets:
    """Contexts double from one bucket to the next, up to exactly the longest."""
    longest = -(-max_context_tokens // block_tokens)
    blocks = [max(1, _SMALLEST_CONTEXT // block_tokens)]
    while blocks[-1] < longest:
        blocks.append(2 * blocks[-1])
    return Buckets(BATCHES, (*blocks[:-1], longest))
