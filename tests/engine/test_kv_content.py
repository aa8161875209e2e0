"""What is read back of an emulated KV depends on every position's content and place, and on nothing else."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fakes import virtual_fold
from twinfer.core.ids import TenantId
from twinfer.core.layout import KVLayout
from twinfer.engine.kv_content import Elements, Fingerprints, KVContent
from twinfer.engine.token_states import token_states

TOKENS = list(range(30))
STATES = token_states(TOKENS, TenantId("t"))
Make = Callable[[int], tuple[KVContent, memoryview]]


def elements(block_tokens: int) -> tuple[KVContent, memoryview]:
    """Real KV in ten blocks that hold anything."""
    layout = KVLayout(2, 1, 4, block_tokens, "bf16")
    memory = memoryview(bytearray(b"\x11" * (10 * layout.block_bytes)))
    return Elements(memory, layout), memory


def fingerprints(block_tokens: int) -> tuple[KVContent, memoryview]:
    """Virtual KV in ten blocks that hold anything."""
    layout = KVLayout(1, 1, 1, block_tokens, "fp32", 1000)
    memory = memoryview(bytearray(b"\x11" * (10 * layout.block_bytes)))
    return Fingerprints(memory, layout), memory


BOTH = pytest.mark.parametrize("make", [elements, fingerprints])


@BOTH
def test_reading_back_is_adding_up_what_was_written(make: Make) -> None:
    """Up to any position, wherever the blocks lie, with whatever stands behind it."""
    content, _ = make(4)
    table = [7, 2, 9, 0, 4, 5, 1, 8]
    content.write(table, 0, STATES[:13])
    content.write(table, 13, STATES[13:])
    terms = content.terms(STATES, np.arange(30, dtype=np.uint64))
    for end in (0, 1, 4, 13, 30):
        expected = terms[:end].sum(dtype=np.uint64) & content.mask
        assert [expected] == (content.folds([table], [end]) & content.mask).tolist()


@BOTH
def test_sequences_are_read_and_written_side_by_side(make: Make) -> None:
    """As one by one; also where one of them has grown, or has other blocks than before."""
    content, _ = make(4)
    tables, starts = [[0, 1], [5, 4, 3]], np.array([2, 5], np.uint64)
    content.write(tables[0], 0, STATES[:2])
    content.write(tables[1], 0, STATES[:5])
    content.write_all(tables, starts, np.stack([STATES[2:6], STATES[5:9]]))
    alone = [content.folds([table], [end])[0] for table, end in zip(tables, (6, 9), strict=True)]
    assert alone == content.folds(tables, [6, 9]).tolist()
    tables[0] += [8]
    content.write(tables[0], 6, STATES[6:10])
    tables[1] = [9, 6, 7]
    content.write(tables[1], 0, STATES[:9])
    assert [content.folds([tables[0]], [10])[0], alone[1]] == content.folds(tables, [10, 9]).tolist()


def test_the_size_of_blocks_does_not_show() -> None:
    """A sequence that moves on to other blocks goes on with the same tokens, which follow from its tokens alone."""
    for block_tokens in (1, 4, 7, 16):
        content, _ = fingerprints(block_tokens)
        table = list(range(-(-10 // block_tokens)))
        content.write(table, 0, STATES[:10])
        assert [virtual_fold(TOKENS[:10])] == content.folds([table], [10]).tolist()


def test_there_are_weights_for_any_length() -> None:
    """Those of long sequences are made when they are needed."""
    layout = KVLayout(1, 1, 1, 2, "fp32", 1000)
    content = Fingerprints(memoryview(bytearray(200 * layout.block_bytes)), layout)
    tokens, table = [n % 11 for n in range(399)], list(range(200))
    content.write(table, 0, token_states(tokens, TenantId("t")))
    assert [virtual_fold(tokens)] == content.folds([table], [399]).tolist()


@given(make=st.sampled_from([elements, fingerprints]), position=st.integers(0, 29), by=st.integers(1, 15))
def test_a_wrong_position_is_noticed(make: Make, position: int, by: int) -> None:
    """One that holds what belongs to another state."""
    content, _ = make(4)
    table = list(range(8))
    content.write(table, 0, STATES)
    right = content.folds([table], [30])[0]
    content.write(table, position, STATES[position : position + 1] + np.uint64(by))
    assert right != content.folds([table], [30])[0]


@given(make=st.sampled_from([elements, fingerprints]), pair=st.lists(st.integers(0, 6), min_size=2, max_size=2))
def test_a_block_in_anothers_place_is_noticed(make: Make, pair: list[int]) -> None:
    """All that should be there is there, but not where it should be; a block of zeros is another case."""
    content, _ = make(4)
    table = list(range(8))
    content.write(table, 0, STATES)
    right = content.folds([table], [30])[0]
    first, second = pair
    swapped = list(table)
    swapped[first], swapped[second] = swapped[second], swapped[first]
    assert (first == second) == (right == content.folds([swapped], [30])[0])
    content.zero(first)
    assert right != content.folds([table], [30])[0]
