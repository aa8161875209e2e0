"""What prompts add to steps: all that they take where parts add up, what is left of it where decoding hides some."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from twinfer.core.cost import NO_WORK, Backlog, StepCost, prompt_work

COST = StepCost(0.01, 1e-4, 0.0, 1e-3, 0.0, chunk_tokens=100, hides=0.5)


@given(tokens=st.integers(0, 10_000), decode_s=st.floats(0.0, 1.0))
def test_parts_add_up_where_nothing_hides(tokens: int, decode_s: float) -> None:
    """Whatever goes on beside a prompt, it takes what it takes."""
    cost = msgspec.structs.replace(COST, hides=0.0)
    assert cost.prefill_s(Backlog(tokens)) == cost.added_s(Backlog(tokens), decode_s)


@pytest.mark.parametrize(
    ("tokens", "added_ms"), [(0, 0.0), (50, 0.0), (60, 1.0), (100, 5.0), (200, 10.0), (250, 10.0), (270, 12.0)]
)
def test_each_step_hides_some_of_its_chunk(tokens: int, added_ms: float) -> None:
    """Five milliseconds of every ten; a hundred positions take ten, and there are at most so many in a step."""
    assert COST.added_s(Backlog(tokens), 0.010) == pytest.approx(added_ms / 1e3)


@given(tokens=st.integers(0, 2000), more=st.integers(0, 2000), hides=st.floats(0.0, 1.0), decode_s=st.floats(0.0, 1.0))
def test_more_adds_more_and_never_more_than_it_takes(tokens: int, more: int, hides: float, decode_s: float) -> None:
    """Nothing is gained by a longer prompt, and nothing costs more than alone."""
    cost = msgspec.structs.replace(COST, hides=hides)
    some, all_of_it = (cost.added_s(Backlog(size), decode_s) for size in (tokens, tokens + more))
    assert 0.0 <= some <= all_of_it + 1e-12
    assert all_of_it <= cost.prefill_s(prompt_work(0, tokens + more)) + 1e-12
    assert cost.added_s(NO_WORK, decode_s) == 0.0
