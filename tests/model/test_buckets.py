from hypothesis import given
from hypothesis import strategies as st

from twinfer.model.buckets import Bucket, Buckets, buckets_for


@given(
    max_context=st.integers(1, 200_000), block_tokens=st.sampled_from([1, 4, 16, 32, 512]), count=st.integers(1, 256)
)
def test_every_step_has_the_smallest_shape_that_holds_it(max_context: int, block_tokens: int, count: int) -> None:
    """Up to 256 sequences of the longest context there is one; contexts ascend and end with exactly the longest."""
    buckets = buckets_for(max_context, block_tokens)
    longest = -(-max_context // block_tokens)
    assert longest == buckets.blocks[-1]
    assert sorted(set(buckets.blocks)) == list(buckets.blocks)
    assert len(buckets.blocks) <= 12
    for blocks in (1, longest // 3 + 1, longest):
        found = buckets.choose(count, blocks)
        assert found is not None
        assert min(size for size in buckets.sequences if size >= count) == found.sequences
        assert min(size for size in buckets.blocks if size >= blocks) == found.blocks


def test_what_is_too_large_has_none() -> None:
    """Neither too many sequences nor too long ones have a shape."""
    buckets = Buckets((1, 2), (4, 6))
    assert [Bucket(2, 4), Bucket(1, 6)] == [buckets.choose(2, 1), buckets.choose(1, 5)]
    assert [None, None] == [buckets.choose(3, 1), buckets.choose(1, 7)]
