"""Plots of points: a cloud of single measurements, or lines through a few, with their names."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

from twinfer.plots.ticks import even_ticks, log_ticks

WIDTH, HEIGHT = 640, 240
LEFT, RIGHT, TOP, BOTTOM = 64, 16, 14, 44

Label = Callable[[float], str]


@dataclass(frozen=True, slots=True)
class Point:
    """A place; ``note`` is said where the pointer rests and, in lines, beside it."""

    x: float
    y: float
    note: str = ""


@dataclass(frozen=True, slots=True)
class Points:
    """A set of points with the colour's number in the page's palette."""

    name: str
    points: Sequence[Point]
    colour: int


@dataclass(frozen=True, slots=True)
class Axis:
    """What an axis says, and how it writes a value."""

    name: str
    label: Label
    log: bool = False


def cloud(sets: Sequence[Points], x: Axis, y: Axis, title: str) -> str:
    """Every point a dot that lets others shine through."""
    return _plot(sets, x, y, title, joined=False)


def curves(sets: Sequence[Points], x: Axis, y: Axis, title: str) -> str:
    """The points of each set joined in their order, with their notes beside them."""
    return _plot(sets, x, y, title, joined=True)


@dataclass(frozen=True, slots=True)
class _Scale:
    low: float
    high: float
    start: float
    end: float
    log: bool

    def place(self, value: float) -> float:
        low, high, at = self.low, self.high, max(self.low, min(self.high, value))
        if self.log:
            low, high, at = math.log10(low), math.log10(high), math.log10(at)
        return self.start + (self.end - self.start) * (at - low) / (high - low)

    def ticks(self) -> list[float]:
        return log_ticks(self.low, self.high) if self.log else even_ticks(self.low, self.high)


def _scale(values: Sequence[float], start: float, end: float, log: bool) -> _Scale:
    above = [value for value in values if value > 0]
    high = max(above, default=1.0)
    if log and above:
        return _Scale(min(above) / 1.15, high * 1.15, start, end, True)
    return _Scale(0.0, high * 1.06, start, end, False)


def _plot(sets: Sequence[Points], x: Axis, y: Axis, title: str, *, joined: bool) -> str:
    across = _scale([one.x for some in sets for one in some.points], LEFT, WIDTH - RIGHT, x.log)
    up = _scale([one.y for some in sets for one in some.points], HEIGHT - BOTTOM, TOP, y.log)
    parts = [_grid(across, up, x, y)]
    for some in sets:
        places = [(across.place(one.x), up.place(one.y), one.note) for one in some.points]
        if joined:
            path = "".join(f"{'L' if index else 'M'}{at:.1f},{top:.1f}" for index, (at, top, _) in enumerate(places))
            parts.append(f'<path class="line c{some.colour}" d="{path}"/>')
        for at, top, note in places:
            said = f"<title>{escape(note)}</title>" if note else ""
            size, faint = (4, "") if joined else (2.2, ' opacity="0.55"')
            parts.append(
                f'<circle class="c{some.colour}" cx="{at:.1f}" cy="{top:.1f}" r="{size}"{faint}>{said}</circle>'
            )
            if joined and note:
                parts.append(f'<text class="x" x="{at:.1f}" y="{top - 8:.1f}">{escape(note)}</text>')
    return (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)}">'
        f"<title>{escape(title)}</title>{''.join(parts)}</svg>"
    )


def _grid(across: _Scale, up: _Scale, x: Axis, y: Axis) -> str:
    parts = [f'<text class="x" x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 8}">{escape(x.name)}</text>']
    for tick in up.ticks():
        at = up.place(tick)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{at:.1f}" y2="{at:.1f}"/>')
        parts.append(f'<text class="y" x="{LEFT - 6}" y="{at + 3:.1f}">{escape(y.label(tick))}</text>')
    for tick in across.ticks():
        parts.append(f'<text class="x" x="{across.place(tick):.1f}" y="{HEIGHT - 26}">{escape(x.label(tick))}</text>')
    return "".join(parts)
