"""Ticks are round, within the axis, and enough to read it by."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twinfer.plots.ticks import MANY, even_ticks, log_ticks


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0.01, 100.0, [0.01, 0.1, 1.0, 10.0, 100.0]),
        (0.015, 0.3, [0.02, 0.05, 0.1, 0.2]),
        (0.015, 0.06, [0.02, 0.03, 0.05]),
        (0.07, 0.096, [0.07, 0.08, 0.09]),
        (0.081, 0.089, [0.082, 0.084, 0.086, 0.088]),
    ],
)
def test_logarithmic(low: float, high: float, expected: list[float]) -> None:
    """The wider the axis, the rounder its ticks; one within a decade has ticks, too."""
    assert expected == pytest.approx(log_ticks(low, high))


@given(st.floats(1e-6, 1e6), st.floats(1.02, 1e8))
def test_always_enough(low: float, factor: float) -> None:
    """Any axis has at least two ticks and not many, in order, and none outside."""
    ticks = log_ticks(low, low * factor)
    assert 2 <= len(ticks) <= MANY
    assert ticks == sorted(ticks)
    assert low * 0.9999 <= ticks[0] <= ticks[-1] <= low * factor * 1.0001


def test_even() -> None:
    """Steps of 1, 2 and 5, or of minutes."""
    assert [0, 20, 40, 60, 80, 100] == even_ticks(0, 100)
    assert [0, 60, 120, 180] == even_ticks(0, 200, 60)
    assert [0.0, 0.5, 1.0, 1.5, 2.0] == even_ticks(0, 2.4)
