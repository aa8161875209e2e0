"""Amounts over time."""

from hypothesis import given
from hypothesis import strategies as st

from twinfer.simulator.strip import Strip


def test_by_hand() -> None:
    """Each bin has the rate times its part of the time."""
    strip = Strip(1.0)
    strip.add(0.5, 3.25, 2.0)
    strip.add(1.0, 1.5)
    assert [1.0, 2.5, 2.0, 0.5] == strip.sums
    assert [1.75, 1.25] == strip.means_over(4.0, 2)


@given(st.lists(st.tuples(st.floats(0, 50), st.floats(0, 20), st.floats(0, 4)), max_size=10), st.integers(1, 30))
def test_nothing_is_lost(parts: list[tuple[float, float, float]], num_bins: int) -> None:
    """The sum over all bins is that of all parts, however they are cut."""
    strip = Strip(0.7)
    for start, seconds, rate in parts:
        strip.add(start, start + seconds, rate)
    total = sum(rate * (start + seconds - start) for start, seconds, rate in parts)
    assert abs(total - sum(strip.sums)) < 1e-6
    assert abs(total - sum(strip.means_over(80.0, num_bins)) * 80.0 / num_bins) < 1e-6
