"""Places grow with values, and ticks are where they say."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twinfer.plots.scale import Scale


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0.00025, 0.0007, [0.0003, 0.0005, 0.0007]),
        (0.5, 20.0, [0.5, 1.0, 2.0, 5.0, 10.0, 20.0]),
        (0.0003, 0.3, [0.001, 0.01, 0.1]),
    ],
)
def test_logarithmic_ticks(low: float, high: float, expected: list[float]) -> None:
    """Round values within the scale, as close as can be read."""
    assert expected == pytest.approx(Scale(low, high, 0.0, 100.0, log=True).ticks())


def test_even_ticks() -> None:
    """Steps of 1, 2 or 5; of long times, of minutes."""
    assert [0, 20, 40, 60, 80] == Scale(0.0, 85.0, 0.0, 1.0).ticks()
    assert [0, 60, 120, 180, 240] == Scale(0.0, 250.0, 0.0, 1.0, time=True).ticks()


@given(st.floats(1e-6, 1e6), st.floats(1.01, 1e6), st.booleans())
def test_ticks_stand_where_their_values_do(low: float, by: float, log: bool) -> None:
    """Rising, none of them at an end that is not its own, and not more than can be read."""
    scale = Scale(low, low * by, 10.0, 90.0, log)
    ticks = scale.ticks()
    places = [scale.place(tick) for tick in ticks]
    assert (sorted(set(places)), len(ticks) <= 14) == (places, True)
    assert [] == [tick for tick in ticks if not low * 0.999 <= tick <= low * by * 1.001]
    assert (10.0, 90.0) == (scale.place(low / 2), scale.place(low * by * 2))
