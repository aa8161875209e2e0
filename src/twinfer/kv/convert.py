"""From a source's KV blocks to a sink's: other tokens per block, other element types.

The tokens of a sequence lie in blocks of ``source_size`` on one side and of ``sink_size`` on the other, neither a
multiple of the other. Where both boundaries are drawn, each stretch between two of them lies in one block of each side
and is converted by itself, so chunks may arrive in any order. Equal element types are copied as they are; others go
through float32 and are rounded once.
"""

from collections.abc import Iterator
from typing import NamedTuple

from twinfer.kv.elements import BlockArrays

_PIECE_ELEMENTS = 1 << 15
"""Converted at once, so that what lies between the two types stays in the second-level cache."""


class Stretch(NamedTuple):
    """Consecutive tokens that lie in one block of either side."""

    source_block: int
    source_offset: int
    sink_block: int
    sink_offset: int
    num_tokens: int


def stretches(tokens: range, source_size: int, sink_size: int) -> Iterator[Stretch]:
    """All stretches of a range of token positions, in order; blocks are counted within the sequence."""
    position = tokens.start
    while position < tokens.stop:
        source_block, source_offset = divmod(position, source_size)
        sink_block, sink_offset = divmod(position, sink_size)
        num = min(source_size - source_offset, sink_size - sink_offset, tokens.stop - position)
        yield Stretch(source_block, source_offset, sink_block, sink_offset, num)
        position += num


def convert(source: BlockArrays, sink: BlockArrays, stretch: Stretch) -> None:
    """Write a stretch, whose blocks are counted within the two arrays. What else lies in the sink's block stays.

    The two layouts may differ in tokens per block and element type, and in nothing else. The GIL is released on large
    blocks.
    """
    block, into = stretch.source_block, stretch.sink_block
    if source.layout.dtype == sink.layout.dtype:
        sink.copy(into, stretch.sink_offset, stretch.num_tokens, source, (block, stretch.source_offset))
        return
    taken = slice(stretch.source_offset, stretch.source_offset + stretch.num_tokens)
    given = slice(stretch.sink_offset, stretch.sink_offset + stretch.num_tokens)
    layout = source.layout
    per_layer = 2 * layout.num_kv_heads * stretch.num_tokens * layout.head_dim
    step = max(1, _PIECE_ELEMENTS // per_layer)
    for first in range(0, layout.num_layers, step):
        layers = slice(first, first + step)
        sink.write(into, given, source.read(block, taken, layers), layers)
