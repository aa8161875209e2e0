"""Conversion: the same tokens at the same positions, whatever the blocks; nothing else is touched."""

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from twinfer.core.layout import KVDtype, KVLayout
from twinfer.kv.convert import convert, stretches
from twinfer.kv.elements import BlockArrays, ElementView
from twinfer.kv.formats import decode, encode

DTYPES: tuple[KVDtype, ...] = ("fp32", "bf16", "fp16", "fp8")
SHAPE = KVLayout(num_layers=3, num_kv_heads=2, head_dim=4, block_tokens=1, dtype="fp32")
CANARY = 0x33


def a_layout(block_tokens: int, dtype: KVDtype) -> KVLayout:
    """The test's shape in this form."""
    return msgspec.structs.replace(SHAPE, block_tokens=block_tokens, dtype=dtype)


def some_blocks(layout: KVLayout, num_tokens: int, fill: int = CANARY) -> BlockArrays:
    """Room for that many tokens."""
    return BlockArrays(memoryview(bytearray([fill]) * (layout.blocks_for(num_tokens) * layout.block_bytes)), layout)


def naive(source: BlockArrays, sink: BlockArrays, tokens: range) -> None:
    """Token by token, layer by layer, head by head."""
    for position in tokens:
        block, offset = divmod(position, source.layout.block_tokens)
        into, at = divmod(position, sink.layout.block_tokens)
        for layer, kind, head in np.ndindex(3, 2, 2):
            place = (block, layer, kind, head, offset)
            scales = None if source.scales is None else source.scales[place][None]
            stored, scale = encode(decode(source.elements[place][None], scales, source.layout.dtype), sink.layout.dtype)
            sink.elements[into, layer, kind, head, at] = stored[0]
            if sink.scales is not None and scale is not None:
                sink.scales[into, layer, kind, head, at] = scale[0]


@given(
    sizes=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    dtypes=st.tuples(st.sampled_from(DTYPES), st.sampled_from(DTYPES)),
    bounds=st.tuples(st.integers(0, 30), st.integers(0, 30)).map(sorted),
    seed=st.integers(0, 5),
)
def test_same_as_token_by_token(
    sizes: tuple[int, int], dtypes: tuple[KVDtype, KVDtype], bounds: list[int], seed: int
) -> None:
    """Any sizes, any types, any range: the very values of a naive loop, and no other is touched."""
    source = some_blocks(a_layout(sizes[0], dtypes[0]), 30)
    values = np.random.default_rng(seed).standard_normal((3, 2, 2, sizes[0], 4)).astype(np.float32)
    for block in range(len(source.elements)):
        source.write(block, slice(None), values * np.float32(block + 1))
    layout, tokens = a_layout(sizes[1], dtypes[1]), range(*bounds)
    found, expected = some_blocks(layout, 30), some_blocks(layout, 30)
    for stretch in stretches(tokens, *sizes):
        convert(source, found, stretch)
    naive(source, expected, tokens)
    whole = slice(None)
    for block in range(len(found.elements)):
        assert np.array_equal(expected.read(block, whole), found.read(block, whole), equal_nan=True)


@pytest.mark.parametrize("there", DTYPES)
@pytest.mark.parametrize("back", DTYPES)
def test_small_integers_survive_any_way(there: KVDtype, back: KVDtype) -> None:
    """What the emulated engine stores comes through two conversions unchanged, and new blocks each time."""
    rows = (np.arange(20 * 48).reshape(20, 48) * 7 % 16 - 8).astype(np.int8)
    forms = [a_layout(4, back), a_layout(7, there), a_layout(3, back)]
    buffers = [memoryview(bytearray(form.blocks_for(20) * form.block_bytes)) for form in forms]
    ElementView(buffers[0], forms[0]).write_tokens(range(5), 0, rows)
    for first, second in ((0, 1), (1, 2)):
        source, sink = (BlockArrays(buffers[i], forms[i]) for i in (first, second))
        for stretch in stretches(range(20), forms[first].block_tokens, forms[second].block_tokens):
            convert(source, sink, stretch)
    assert np.array_equal(rows, ElementView(buffers[2], forms[2]).read_tokens(range(7), 20))


@given(start=st.integers(0, 40), length=st.integers(0, 40), sizes=st.tuples(st.integers(1, 9), st.integers(1, 9)))
def test_stretches_cover_each_token_once(start: int, length: int, sizes: tuple[int, int]) -> None:
    """In order, within one block on either side."""
    seen: list[int] = []
    for part in stretches(range(start, start + length), *sizes):
        at = [part.source_block * sizes[0] + part.source_offset, part.sink_block * sizes[1] + part.sink_offset]
        assert at[0] == at[1]
        assert part.source_offset + part.num_tokens <= sizes[0]
        assert part.sink_offset + part.num_tokens <= sizes[1]
        seen += range(at[0], at[0] + part.num_tokens)
    assert list(range(start, start + length)) == seen


@pytest.mark.parametrize("dtype", DTYPES)
def test_zeroing_the_end_of_a_block(dtype: KVDtype) -> None:
    """Elements and scales from a token on; what is before stays."""
    blocks = some_blocks(a_layout(5, dtype), 10)
    before = blocks.read(1, slice(0, 2)).copy()
    blocks.zero(1, 2)
    assert not blocks.read(1, slice(2, 5)).any()
    assert np.array_equal(before, blocks.read(1, slice(0, 2)))
    assert not blocks.elements[1, ..., 2:, :].any()
    assert blocks.scales is None or not blocks.scales[1, ..., 2:].any()


def test_fp8_scales_follow_their_head() -> None:
    """A head's elements and scales are one run, so a range of heads or layers is contiguous with them."""
    layout = a_layout(5, "fp8")
    buffer = bytearray(layout.block_bytes)
    blocks = BlockArrays(memoryview(buffer), layout)
    assert blocks.scales is not None
    blocks.elements[0, 1, 0, 1, 2, 3] = 0xE1
    blocks.scales[0, 1, 0, 1, 2] = 0x5C
    run = (1 * 2 + 0) * 2 + 1
    assert layout.head_bytes == 5 * 4 + 5
    assert (buffer[run * 25 + 2 * 4 + 3], buffer[run * 25 + 20 + 2]) == (0xE1, 0x5C)
    assert sum(byte != 0 for byte in buffer) == 2


@pytest.mark.parametrize(("block", "token", "num_tokens"), [(2, 0, 1), (-1, 0, 1), (0, 3, 2), (0, -1, 2), (0, 0, 0)])
def test_no_copy_outside_of_a_block(block: int, token: int, num_tokens: int) -> None:
    """Whichever side of it: copies go by address, and nobody else would notice."""
    blocks = some_blocks(a_layout(4, "bf16"), 8)
    other = some_blocks(a_layout(8, "bf16"), 16)
    with pytest.raises(IndexError, match=f"no {num_tokens} tokens from {token} on in block {block} of 2"):
        blocks.copy(block, token, num_tokens, other, (0, 0))
    with pytest.raises(IndexError, match="of 2"):
        other.copy(0, 0, num_tokens, blocks, (block, token))
