"""Charts as SVG text, of the kinds that the documentation needs: ranges, a band over an axis, a histogram, and bars.

Axes of ranges are logarithmic, so is the one along a band; its height starts at nothing. Texts are the reader's sans
serif; the ground is white, so that charts look the same on dark pages.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

WIDTH = 760
INK, MUTED, GRID, ACCENT, BAND, ALARM = "#1c2430", "#5d6878", "#e3e7ed", "#2463a8", "#c9dcf1", "#b4412c"
_LEFT, _RIGHT, _TOP, _ROW = 276, 72, 76, 28


@dataclass(frozen=True, slots=True)
class Range:
    """One line of a chart of ranges: a value between its bounds.

    Attributes:
        note: what stands at its right end.
        strong: drawn in the accent's colour.
    """

    label: str
    low: float
    value: float
    high: float
    note: str
    strong: bool = True


@dataclass(frozen=True, slots=True)
class Labels:
    """What stands around a chart."""

    title: str
    subtitle: str
    axis: str


@dataclass(frozen=True, slots=True)
class Mark:
    """A horizontal line with its name."""

    value: float
    label: str


def ranges(labels: Labels, rows: Sequence[Range], mark: Mark) -> str:
    """A dot between two bounds for every row, and a dashed line at what is claimed."""
    floor = min([row.low for row in rows] + [mark.value])
    ceiling = max([row.high for row in rows] + [mark.value])
    scale = _Log(floor / 1.15, ceiling * 1.15, _LEFT, WIDTH - _RIGHT)
    bottom = _TOP + _ROW * len(rows) + 8
    parts = [_vertical(scale, tick, _TOP - 6, bottom) for tick in scale.ticks()]
    x = scale(mark.value)
    parts.append(_line(x, _TOP - 6, x, bottom, ALARM, dashed=True))
    parts.append(_text(x, _TOP - 11, mark.label, ALARM, 12, "middle", True))
    for index, row in enumerate(rows):
        parts += _range_row(scale, row, _TOP + _ROW * index + _ROW / 2)
    parts.append(_text((_LEFT + WIDTH - _RIGHT) / 2, bottom + 36, labels.axis, MUTED, 12, "middle"))
    return _page(labels, parts, bottom + 50)


@dataclass(frozen=True, slots=True)
class Band:
    """A line with what lies below and above it: ``(x, low, value, high)``."""

    points: Sequence[tuple[float, float, float, float]]
    marks: Sequence[Mark]
    x_axis: str
    x_names: Sequence[tuple[float, str]]


def band(labels: Labels, held: Band) -> str:
    """A line in a band over a logarithmic axis, and published values across it."""
    top, bottom, left, right = 90, 382, 74, WIDTH - 190
    across = _Log(held.points[0][0], held.points[-1][0], left, right)
    values = [value for _, *bounds in held.points for value in bounds] + [mark.value for mark in held.marks]
    step = 10.0 ** math.floor(math.log10(max(values) / 2.0))
    ticks = [step * number for number in range(math.ceil(max(values) / step) + 1)]

    def up(value: float) -> float:
        return bottom + value / ticks[-1] * (top - bottom)

    parts = []
    for tick in ticks:
        parts.append(_line(left, up(tick), right, up(tick), GRID))
        parts.append(_text(left - 8, up(tick) + 4, _number(tick), MUTED, 12, "end"))
    for x, name in held.x_names:
        parts.append(_text(across(x), bottom + 20, name, MUTED, 12, "middle"))
    upper = [f"{across(x):.1f},{up(high):.1f}" for x, _, _, high in held.points]
    lower = [f"{across(x):.1f},{up(low):.1f}" for x, low, _, _ in reversed(held.points)]
    parts.append(f'<polygon points="{" ".join(upper + lower)}" fill="{BAND}"/>')
    line = " ".join(f"{across(x):.1f},{up(value):.1f}" for x, _, value, _ in held.points)
    parts.append(f'<polyline points="{line}" fill="none" stroke="{ACCENT}" stroke-width="2.5"/>')
    for mark in held.marks:
        y = up(mark.value)
        parts.append(_line(left, y, right, y, ALARM, dashed=True))
        parts.append(_text(right + 8, y + 4, mark.label, ALARM, 12))
    parts.append(_text((left + right) / 2, bottom + 44, held.x_axis, MUTED, 12, "middle"))
    parts.append(_text(16, top - 16, labels.axis, MUTED, 12))
    return _page(labels, parts, bottom + 58)


def histogram(labels: Labels, edges: Sequence[float], series: Sequence[tuple[str, Sequence[int]]]) -> str:
    """Bars over bins between edges, one panel below the other for each series."""
    left, right, high = 60, WIDTH - 24, 120
    wide = (right - left) / (len(edges) - 1)
    parts, y = [], 70.0
    for name, counts in series:
        parts.append(_text(left, y + 8, name, INK, 13, "start", True))
        base = y + high + 30
        for index, count in enumerate(counts):
            tall = high * count / max(counts)
            colour = ACCENT if abs(edges[index] + edges[index + 1]) / 2 <= 0.25 else BAND
            place = f'x="{left + index * wide + 1:.1f}" y="{base - tall:.1f}" width="{wide - 2:.1f}"'
            parts.append(f'<rect {place} height="{tall:.1f}" fill="{colour}"/>')
            if count:
                parts.append(_text(left + (index + 0.5) * wide, base - tall - 4, str(count), MUTED, 11, "middle"))
        parts.append(_line(left, base, right, base, INK))
        for index, edge in enumerate(edges):
            if index in (0, len(edges) - 1):
                continue
            parts.append(_text(left + index * wide, base + 16, f"{edge:+.0%}" if edge else "0", MUTED, 11, "middle"))
        y = base + 34
    parts.append(_text((left + right) / 2, y + 4, labels.axis, MUTED, 12, "middle"))
    return _page(labels, parts, y + 18)


@dataclass(frozen=True, slots=True)
class Bar:
    """One of a group of bars.

    Attributes:
        group: stands once above all of its bars.
        kind: stands in brackets behind the label.
        strong: drawn in the accent's colour.
    """

    group: str
    label: str
    kind: str
    value: float
    strong: bool


def bars(labels: Labels, rows: Sequence[Bar]) -> str:
    """Lying bars from nothing, each with its number; those of a group are next to each other."""
    left, right, high, y, parts, group = 376, WIDTH - 60, max([row.value for row in rows] + [1e-9]), 66.0, [], ""
    for row in rows:
        if row.group != group:
            group = row.group
            y += 22
            parts.append(_text(16, y - 6, group, INK, 13, "start", True))
        long = max(1.0, (right - left) * row.value / high)
        colour = ACCENT if row.strong else MUTED
        parts.append(_text(left - 10, y + 13, f"{row.label} ({row.kind})", INK, 12, "end"))
        parts.append(f'<rect x="{left}" y="{y + 2:.1f}" width="{long:.1f}" height="15" rx="2" fill="{colour}"/>')
        parts.append(_text(left + long + 6, y + 14, f"{row.value:.2f}", INK, 12))
        y += 20
    parts.append(_text((left + right) / 2, y + 24, labels.axis, MUTED, 12, "middle"))
    return _page(labels, parts, y + 38)


class _Log:
    """From values to places, logarithmically."""

    def __init__(self, low: float, high: float, start: float, end: float) -> None:
        self._low, self._high, self._start, self._end = low, high, start, end

    def __call__(self, value: float) -> float:
        share = math.log(value / self._low) / math.log(self._high / self._low)
        return self._start + share * (self._end - self._start)

    def ticks(self) -> list[float]:
        """1, 2 and 5 times powers of ten; of many decades the powers alone."""
        decades = range(math.floor(math.log10(self._low)), math.ceil(math.log10(self._high)) + 1)
        steps = (1.0, 2.0, 5.0) if math.log10(self._high / self._low) < 3 else (1.0,)
        found = [step * 10.0**decade for decade in decades for step in steps]
        return [tick for tick in found if self._low <= tick <= self._high]


def _range_row(scale: _Log, row: Range, y: float) -> list[str]:
    colour = ACCENT if row.strong else MUTED
    low, value, high = scale(row.low), scale(row.value), scale(row.high)
    return [
        _text(_LEFT - 12, y + 4, row.label, INK, 13, "end"),
        f'<line x1="{low:.1f}" y1="{y:.1f}" x2="{high:.1f}" y2="{y:.1f}" stroke="{colour}" stroke-width="7" '
        f'stroke-linecap="round" opacity="0.28"/>',
        f'<circle cx="{value:.1f}" cy="{y:.1f}" r="5.5" fill="{colour}"/>',
        _text(WIDTH - _RIGHT + 8, y + 4, row.note, INK, 12),
    ]


def _vertical(scale: _Log, tick: float, top: float, bottom: float) -> str:
    x = scale(tick)
    return _line(x, top, x, bottom, GRID) + _text(x, bottom + 17, _number(tick), MUTED, 12, "middle")


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 1 or not value else f"{value:g}"


def _text(x: float, y: float, text: str, fill: str, size: int, anchor: str = "start", bold: bool = False) -> str:
    weight = ' font-weight="600"' if bold else ""
    look = f'fill="{fill}" font-size="{size}" text-anchor="{anchor}"{weight}'
    return f'<text x="{x:.1f}" y="{y:.1f}" {look}>{escape(text)}</text>'


def _line(x1: float, y1: float, x2: float, y2: float, colour: str, dashed: bool = False) -> str:
    dashes = ' stroke-dasharray="5 4"' if dashed else ""
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{colour}"{dashes}/>'


def _page(labels: Labels, parts: Sequence[str], height: float) -> str:
    size = f'width="{WIDTH}" height="{height:.0f}" viewBox="0 0 {WIDTH} {height:.0f}"'
    name = escape(labels.title, quote=True)
    head = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size}',
        f'  font-family="Helvetica, Arial, sans-serif" role="img" aria-label="{name}">',
        f'<rect width="{WIDTH}" height="{height:.0f}" fill="#ffffff"/>',
        _text(16, 26, labels.title, INK, 16, "start", True),
        _text(16, 46, labels.subtitle, MUTED, 12),
    ]
    return "\n".join([*head, *parts, "</svg>", ""])
