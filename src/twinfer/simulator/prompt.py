"""Prompts of a trace: it is known which stretches are alike, and how long they are, but not their words.

A prompt of hundred thousand tokens is a handful of numbers here. Everything that looks at a prompt only by its length,
by slices of it, and by the hashes of its blocks, takes it like any other.
"""

import struct
from collections.abc import Iterator, Sequence
from hashlib import blake2b
from typing import SupportsIndex, cast, overload

import msgspec

from twinfer.core.block_hash import HASH_BYTES, BlockHash, BlockHasher


class SpanPrompt(msgspec.Struct, frozen=True):
    """A part of a prompt.

    Args:
        stretches: of the whole prompt, what each holds; equal numbers mean equal tokens.
        stretch_tokens: positions of each; the last one may be cut short.
        start, stop: the part's place in the whole.
    """

    stretches: tuple[int, ...]
    stretch_tokens: int
    start: int
    stop: int

    def __len__(self) -> int:
        return self.stop - self.start

    @overload
    def __getitem__(self, place: SupportsIndex) -> int: ...
    @overload
    def __getitem__(self, place: slice) -> "SpanPrompt": ...
    def __getitem__(self, place: SupportsIndex | slice) -> "int | SpanPrompt":
        if isinstance(place, slice):
            first, end, _ = place.indices(self.stop - self.start)
            return SpanPrompt(self.stretches, self.stretch_tokens, self.start + first, self.start + max(first, end))
        return self.stretches[(self.start + range(self.stop - self.start)[place]) // self.stretch_tokens]

    def __iter__(self) -> Iterator[int]:
        return (self.stretches[position // self.stretch_tokens] for position in range(self.start, self.stop))

    @property
    def content(self) -> tuple[int, ...]:
        """What names its tokens: where it begins within its first stretch, its length, and its stretches."""
        size = self.stretch_tokens
        covered = self.stretches[self.start // size : -(-self.stop // size)]
        return (self.start % size, self.stop - self.start, *covered)

    def as_tokens(self) -> tuple[int, ...]:
        """Itself, as the type of a request's prompt: it is one to whoever takes lengths, slices and hashes."""
        return cast(tuple[int, ...], self)


class SpanHasher(BlockHasher):
    """Names blocks of such prompts by what they hold."""

    def extend(self, parent: BlockHash, token_ids: Sequence[int]) -> BlockHash:
        """The hash of the block that follows ``parent``."""
        if not isinstance(token_ids, SpanPrompt):
            return super().extend(parent, token_ids)
        content = token_ids.content
        return blake2b(struct.pack(f"<{len(content)}Q", *content), digest_size=HASH_BYTES, key=parent).digest()
