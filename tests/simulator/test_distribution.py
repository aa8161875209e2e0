"""Percentiles, exact and in bins."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twinfer.simulator.distribution import Gaps, percentile


def test_percentiles() -> None:
    """The smallest value that so many percent do not exceed."""
    assert [50, 90, 99, 100] == [percentile(range(1, 101), percent) for percent in (50, 90, 99, 100)]
    assert (7.0, 0.0) == (percentile([7.0], 1), percentile([], 50))


@given(st.lists(st.floats(1e-6, 1e3), min_size=1, max_size=60), st.sampled_from([50, 90, 99]))
def test_gaps_are_known_to_half_a_percent(values: list[float], percent: int) -> None:
    """Bins instead of values cost no more than their width; the mean costs nothing."""
    gaps = Gaps()
    for value in values:
        gaps.add(value)
    assert gaps.percentile(percent) == pytest.approx(percentile(sorted(values), percent), rel=0.005)
    assert gaps.mean == pytest.approx(sum(values) / len(values))
    assert len(values) == sum(number for _, number in gaps.histogram(20))


def test_even_growth() -> None:
    """Adding a run is adding its steps."""
    one, other = Gaps(), Gaps()
    one.add_even(0.01, 1e-4, 50, 3)
    for index in range(50):
        other.add(0.01 + 1e-4 * index, 3)
    assert one.histogram(20) == other.histogram(20)
    assert one.mean == pytest.approx(other.mean)
