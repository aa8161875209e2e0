from hypothesis import given
from hypothesis import strategies as st

from twinfer.model.buckets import Bucket, Buckets, buckets_for


@given(
    max_context=st.integers(1, 200_000), block_tokens=st.sampled_from([1, 4, 16, 32, 512]), count=st.integers(1, 256)
)
def test_sequences_of_a_length_have_the_smallest_shape_that_holds_them(
    max_context: int, block_tokens: int, count: int
) -> None:
    """Up to 256 of the longest context there is one; contexts ascend and end with exactly the longest."""
    buckets = buckets_for(max_context, block_tokens)
    longest = -(-max_context // block_tokens)
    assert longest == buckets.blocks[-1]
    assert sorted(set(buckets.blocks)) == list(buckets.blocks)
    assert len(buckets.blocks) <= 12
    smallest = min(size for size in buckets.sequences if size >= count)
    for blocks in (buckets.blocks[0], longest):
        assert Bucket(smallest, blocks) == buckets.choose([blocks] * count)


@given(lengths=st.lists(st.integers(1, 2000), min_size=1, max_size=256))
def test_padding_is_bounded(lengths: list[int]) -> None:
    """A shape holds its sequences, and has at most three times their blocks, or few in all."""
    found = buckets_for(32_000, 16).choose(lengths)
    if found is not None:
        assert found.sequences >= len(lengths)
        assert found.blocks >= max(lengths)
        assert found.sequences * found.blocks <= max(1024, 3 * sum(lengths))


def test_what_fits_no_shape_has_none() -> None:
    """Too many sequences, too long ones, and a long one among many short ones."""
    buckets = Buckets((1, 2, 16), (4, 100), 50)
    assert [Bucket(2, 4), Bucket(1, 100)] == [buckets.choose([1, 3]), buckets.choose([90])]
    assert [None, None, None] == [buckets.choose(each) for each in ([1] * 17, [101], [90, *[2] * 15])]
