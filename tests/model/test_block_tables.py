import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.model.driver import make_request
from twinfer.core.step import Slice
from twinfer.model.block_tables import BlockTables, group_by_length, padded

pytestmark = pytest.mark.torch


def decoding(name: str, position: int, blocks: list[int]) -> Slice:
    """One token at a position."""
    return Slice(make_request(name, [1]), [0], position, blocks, 1, [])


def test_tables_follow_their_sequences() -> None:
    """Tables grow, are cut to what counts, and are another's after a sequence came back elsewhere."""
    tables = BlockTables(block_tokens=4)
    blocks = [7, 3]
    assert [list(table) for table in tables.update([decoding("a", 7, blocks)])] == [[7, 3]]
    blocks.append(5)
    assert [list(table) for table in tables.update([decoding("a", 8, blocks)])] == [[7, 3, 5]]
    assert [list(table) for table in tables.update([decoding("a", 9, [7, 3, 6, 1])])] == [[7, 3, 6]]
    both = tables.update([decoding("b", 0, [2]), decoding("a", 9, [4, 4, 6])])
    assert [list(table) for table in both] == [[2], [4, 4, 6]]


def test_unchanged_table_is_not_converted_again() -> None:
    """As long as its table stays the same, so does the array."""
    tables = BlockTables(block_tokens=4)
    (first,) = tables.update([decoding("a", 5, [7, 3])])
    (second,) = tables.update([decoding("a", 6, [7, 3])])
    assert first is second


@given(st.lists(st.integers(1, 500), max_size=40))
def test_groups(lengths: list[int]) -> None:
    """Everyone is in one group, and padding is at most a third of what is there."""
    groups = group_by_length(lengths)
    assert list(range(len(lengths))) == sorted(index for group in groups for index in group)
    for group in groups:
        inside = [lengths[index] for index in group]
        assert inside[0] == max(inside)
        assert inside[0] * len(inside) <= sum(inside) * 4 / 3


def test_padding_is_ones_own() -> None:
    """A short table is filled with a block of its own sequence, never with another's."""
    tables = BlockTables(4).update([decoding("a", 0, [7]), decoding("b", 11, [3, 5, 2])])
    assert padded(tables).tolist() == [[7, 7, 7], [3, 5, 2]]
