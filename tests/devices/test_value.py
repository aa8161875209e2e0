"""Numbers keep their range and their source, and curves assume nothing better than what was seen."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twinfer.devices.value import Point, Quality, Value, check_curve, on_curve, worst


def a_value(value: float = 1.0, **changes: Any) -> Value:
    """A number that is measured and not doubted."""
    fields = {"low": value, "high": value, "quality": Quality.MEASURED, "source": "a test"} | changes
    return Value(value=value, **fields)


def points(*pairs: tuple[float, float]) -> tuple[Point, ...]:
    """A curve through these places."""
    return tuple(
        Point(at=at, value=value, low=value, high=value, quality=Quality.MEASURED, source="a test")
        for at, value in pairs
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"low": 2.0, "high": 3.0}, "value 1 lies outside its own range from low 2 to 3"),
        ({"low": 0.1, "high": 0.9}, "value 1 lies outside its own range"),
        ({"low": -1.0}, "finite and not negative"),
        ({"high": float("inf")}, "finite and not negative"),
        ({"source": " "}, "source is empty"),
    ],
)
def test_a_number_without_range_or_source_is_refused(changes: dict[str, Any], message: str) -> None:
    """What is wrong is said."""
    with pytest.raises(ValueError, match=message):
        a_value(**changes)


def test_spread() -> None:
    """High over low; nothing to doubt is 1, and a range from nothing has no bound."""
    assert [2.0, 1.0, float("inf")] == [
        a_value(1.5, low=1.0, high=2.0).spread,
        a_value(0.0).spread,
        a_value(0.0, high=1.0).spread,
    ]


def test_the_worst_quality_is_the_one_most_doubted() -> None:
    """A recollection casts more doubt than a vendor's claim, and that more than a benchmark."""
    assert Quality.RECALLED == worst([Quality.INDEPENDENT, Quality.RECALLED, Quality.VENDOR])
    assert Quality.VENDOR == worst([Quality.VENDOR, Quality.INDEPENDENT])
    assert Quality.INDEPENDENT == worst([])


CURVE = points((1, 0.8), (4, 0.4), (8, 0.2))


@pytest.mark.parametrize(("at", "expected"), [(1, 0.8), (2, 0.8 / 2**0.5), (4, 0.4), (8, 0.2), (16, 0.1), (32, 0.05)])
def test_curves_are_logarithmic_and_go_on_falling(at: float, expected: float) -> None:
    """Exact on the points; halfway between two the geometric mean; beyond the last as between the last two."""
    assert expected == pytest.approx(on_curve(CURVE, at))


def test_curves_never_rise_past_their_end() -> None:
    """Larger blocks than those measured are not assumed to be faster; smaller ones are slower in proportion."""
    rising = points((64, 0.2), (128, 0.4), (256, 0.5))
    assert [0.5, 0.1] == [pytest.approx(on_curve(rising, at)) for at in (4096, 32)]


def test_a_single_point_is_flat() -> None:
    """One measurement says nothing of a slope."""
    assert [0.7, 0.7] == [on_curve(points((8, 0.7)), at) for at in (1, 100)]


@given(st.lists(st.floats(0.01, 1.0), min_size=1, max_size=5), st.floats(0.1, 1e4))
def test_curves_stay_positive_and_below_their_highest_point(heights: list[float], at: float) -> None:
    """Past the first point no efficiency is invented above those that were seen."""
    curve = points(*((2.0**index, height) for index, height in enumerate(heights)))
    found = on_curve(curve, max(1.0, at))
    assert found > 0
    assert found <= max(heights) * (1 + 1e-9)


@pytest.mark.parametrize("pairs", [(), ((0, 1),), ((2, 1), (1, 1)), ((1, 1), (1, 1))])
def test_curves_without_order_are_refused(pairs: tuple[tuple[float, float], ...]) -> None:
    """A curve needs points with rising, positive places."""
    with pytest.raises(ValueError, match="points of efficiency have to be given with rising"):
        check_curve(points(*pairs), "efficiency")
