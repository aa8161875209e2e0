"""Plots are well-formed, hold what they were given, and say it to those who cannot see them."""

from xml.etree import ElementTree

from twinfer.plots.page import card, frame, key, table
from twinfer.plots.svg import Series, bars, lines, strips
from twinfer.plots.xy import Axis, Point, Points, cloud, curves

PLAIN = Axis("x & y", lambda value: f"{value:g}")
LOG = Axis("log", lambda value: f"{value:g}", log=True)


def named(plot: str, tag: str) -> list[ElementTree.Element]:
    """All elements of that name."""
    return list(ElementTree.fromstring(plot).iter(tag))


def test_a_cloud():
    """A dot for each point, the first value left of the second, the larger one above."""
    dots = named(cloud((Points("a", [Point(1, 1), Point(2, 100)], 0),), PLAIN, LOG, "t <1>"), "circle")
    assert 2 == len(dots)
    assert float(dots[0].attrib["cx"]) < float(dots[1].attrib["cx"])
    assert float(dots[0].attrib["cy"]) > float(dots[1].attrib["cy"])


def test_curves():
    """A line through each set, with notes beside its points."""
    plot = curves((Points("a", [Point(1, 1, "here"), Point(2, 3)], 1), Points("b", [], 2)), PLAIN, PLAIN, "t")
    assert ["line c1", "line c2"] == [one.attrib["class"] for one in named(plot, "path")]
    assert "here" in [one.text for one in named(plot, "text")]


def test_plots_of_nothing_and_of_one_value():
    """They are drawn all the same."""
    for axis in (PLAIN, LOG):
        assert named(cloud((), axis, axis, "t"), "svg")
        assert 1 == len(named(cloud((Points("a", [Point(5, 5)], 0),), axis, axis, "t"), "circle"))


def test_lines_bars_and_strips():
    """A gap where a value is 0; a bar for each bin; a shade for each stretch of like values."""
    path = named(lines([Series("a", [1.0, 0.0, 2.0, 3.0], 0)], 1.0, str, str, "t"), "path")[0].attrib["d"]
    assert (2, 1) == (path.count("M"), path.count("L"))
    assert 2 == len(named(bars([(0.1, 3), (0.2, 1)], 10, 0, str, "t"), "rect"))
    assert 1 + 2 == len(named(strips([("w", [0.5, 0.5, 1.0])], 0, 1.0, str, "t"), "rect"))


def test_labels_stand_within_the_plot():
    """A label at the very end of an axis too, at more than its width for each letter."""
    plots = (
        bars([(0.001 * 1.1**number, 1) for number in range(48)], 24, 0, lambda value: f"{value * 1e3:g} ms", "t"),
        lines([Series("a", [1.0] * 10, 0)], 10.0, lambda value: f"{value:g} min", str, "t"),
        cloud((Points("a", [Point(1e-3, 1), Point(0.0869, 1)], 0),), LOG, PLAIN, "t"),
    )
    for plot in plots:
        labels = [one for one in named(plot, "text") if one.attrib["class"] == "x"]
        ends = [float(one.attrib["x"]) + 3.2 * len(one.text or "") for one in labels]
        assert [] == [end for end in ends if end > 640]


def test_a_page():
    """What people wrote is text, not markup; the page names no other address."""
    whole = frame(
        "a <b>",
        "<p>i</p>",
        [("n", "<1>")],
        [card("c <d>", "<svg/>"), key([("k <e>", 1)]), table("t", ("<h>",), [("<f>",)])],
    )
    assert [] == [tag for tag in ("<b>a", "<d>", "<e>", "<f>", "<h>", "<1>") if tag in whole]
    assert "prefers-color-scheme: dark" in whole
    assert "http" not in whole
