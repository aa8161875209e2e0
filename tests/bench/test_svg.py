"""Charts are well-formed, hold their labels, and put values where their axis says."""

import re
from xml.etree import ElementTree

import pytest
from bench.svg import Band, Bar, Labels, Mark, Range, band, bars, histogram, ranges

LABELS = Labels("Title & more", "below it", "axis")


def texts(svg: str) -> list[str]:
    """All texts of a chart that parses as XML."""
    return [element.text or "" for element in ElementTree.fromstring(svg).iter() if element.tag.endswith("text")]


def test_ranges() -> None:
    """A row for each, ticks at 1, 2 and 5, and dots in the order of their values."""
    rows = [Range("slow", 1, 2, 4, "2x"), Range("fast", 10, 20, 40, "20x", strong=False)]
    svg = ranges(LABELS, rows, Mark(15, "claimed"))
    assert {"Title & more", "below it", "slow", "fast", "2x", "20x", "claimed", "1", "5", "20"} <= set(texts(svg))
    slow, fast = (float(x) for x in re.findall(r'<circle cx="([\d.]+)"', svg))
    assert slow < fast


def test_a_band() -> None:
    """Its line goes from left to right, and marks have their names."""
    held = Band([(1, 5, 10, 20), (100, 50, 100, 200)], [Mark(30, "said")], "x", [(1, "one"), (100, "many")])
    svg = band(LABELS, held)
    assert {"said", "x", "one", "many"} <= set(texts(svg))
    (line,) = re.findall(r'<polyline points="([^"]+)"', svg)
    (x1, y1), (x2, y2) = (map(float, point.split(",")) for point in line.split())
    assert x1 < x2
    assert y1 > y2


def test_a_histogram() -> None:
    """The fullest bin is the tallest bar, and empty ones have no number."""
    svg = histogram(LABELS, (-0.5, 0.0, 0.5, 1.0), [("errors", [3, 12, 0])])
    heights = [float(tall) for tall in re.findall(r'height="([\d.]+)" fill="#(?!ffffff)', svg)]
    assert [30.0, 120.0, 0.0] == pytest.approx(heights)
    assert {"3", "12", "errors"} <= set(texts(svg))
    assert "+50%" in texts(svg)


def test_bars() -> None:
    """As long as their values, with these beside them, below the name of their group; nothing is a line at least."""
    rows = [
        Bar("chat", "ours", "bf16", 2.0, True),
        Bar("chat", "theirs", "bf16", 1.0, False),
        Bar("code", "a", "int8", 0, True),
    ]
    svg = bars(LABELS, rows)
    assert ["chat", "ours (bf16)", "2.00", "theirs (bf16)", "1.00", "code", "a (int8)", "0.00"] == texts(svg)[2:-1]
    wide = [float(width) for width in re.findall(r'width="([\d.]+)" height="15"', svg)]
    assert wide == pytest.approx([wide[0], wide[0] / 2, 1.0])
