"""Small plots as SVG: lines over time, bars on a logarithmic axis, and strips of shades."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

from twinfer.plots.ticks import even_ticks, log_ticks

WIDTH, HEIGHT = 640, 220
LEFT, RIGHT, TOP, BOTTOM = 64, 12, 12, 30
STRIP_HEIGHT, STRIP_GAP = 12, 3
SHADES = 12

Label = Callable[[float], str]


@dataclass(frozen=True, slots=True)
class Series:
    """A line, or bars, with the colour's number in the page's palette."""

    name: str
    values: Sequence[float]
    colour: int


@dataclass(frozen=True, slots=True)
class _Axis:
    """From values to places; logarithmic where ``log``, and of seconds that people count in minutes where ``time``."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False
    time: bool = False

    def place(self, value: float) -> float:
        low, high, at = self.low, self.high, max(self.low, min(self.high, value))
        if self.log:
            low, high, at = math.log10(low), math.log10(high), math.log10(at)
        return self.start + (self.end - self.start) * ((at - low) / (high - low) if high > low else 0.0)

    def ticks(self) -> list[float]:
        if self.log:
            return log_ticks(self.low, self.high)
        return even_ticks(self.low, self.high, 60 if self.time and self.high - self.low > 100 else 1)


def lines(series: Sequence[Series], step: float, x_label: Label, y_label: Label, title: str) -> str:
    """Lines over time; gaps where a value is 0.

    Args:
        series: equally long ones.
        step: time from one value to the next.
        x_label, y_label: write a value of an axis.
        title: for those who hear the page.
    """
    count = max((len(one.values) for one in series), default=0)
    above = [value for one in series for value in one.values if value > 0]
    low, high = (min(above), max(above)) if above else (0.0, 1.0)
    log = high > 30 * low > 0
    y = _Axis(10 ** math.floor(math.log10(low)) if log else 0.0, high * 1.05, HEIGHT - BOTTOM, TOP, log)
    x = _Axis(0.0, max(count * step, 1e-9), LEFT, WIDTH - RIGHT, time=True)
    parts = [_grid(x, y, x_label, y_label)]
    for one in series:
        before = [0.0, *one.values]
        places = [
            f"{'L' if before[index] > 0 else 'M'}{x.place((index + 0.5) * step):.1f},{y.place(value):.1f}"
            for index, value in enumerate(one.values)
            if value > 0
        ]
        parts.append(f'<path class="line c{one.colour}" d="{"".join(places)}"/>')
    return _svg(parts, HEIGHT, title)


def bars(histogram: Sequence[tuple[float, int]], per_decade: int, colour: int, label: Label, title: str) -> str:
    """Counts on a logarithmic axis of times, with the share below each place as a line."""
    if not histogram:
        return _svg([], HEIGHT, title)
    width = 10 ** (1 / per_decade)
    x = _Axis(histogram[0][0] / width, histogram[-1][0] * width**2, LEFT, WIDTH - RIGHT, log=True)
    total = sum(number for _, number in histogram)
    y = _Axis(0.0, max(number for _, number in histogram) / total * 1.05, HEIGHT - BOTTOM, TOP)
    parts = [_grid(x, y, label, lambda share: f"{100 * share:g} %")]
    below = 0
    steps: list[str] = []
    whole = _Axis(0.0, 1.0, HEIGHT - BOTTOM, TOP)
    for low, number in histogram:
        start, end, top = x.place(low), x.place(low * width), y.place(number / total)
        parts.append(
            f'<rect class="bar c{colour}" x="{start:.1f}" y="{top:.1f}" width="{max(1.0, end - start - 1):.1f}" '
            f'height="{HEIGHT - BOTTOM - top:.1f}"><title>{escape(label(low))}: {number:,}</title></rect>'
        )
        below += number
        steps.append(f"{'L' if steps else 'M'}{end:.1f},{whole.place(below / total):.1f}")
    parts.append(f'<path class="line share" d="{"".join(steps)}"/>')
    return _svg(parts, HEIGHT, title)


def strips(rows: Sequence[tuple[str, Sequence[float]]], colour: int, step: float, x_label: Label, title: str) -> str:
    """One row of shades for each name: the fuller, the stronger. Values lie between 0 and 1."""
    height = len(rows) * (STRIP_HEIGHT + STRIP_GAP) + BOTTOM
    count = max((len(values) for _, values in rows), default=1)
    x = _Axis(0.0, count * step, LEFT + 24, WIDTH - RIGHT, time=True)
    parts = []
    for number, (name, values) in enumerate(rows):
        top = number * (STRIP_HEIGHT + STRIP_GAP)
        parts.append(f'<text class="name" x="{LEFT + 18}" y="{top + 10}">{escape(name)}</text>')
        parts.append(
            f'<rect class="empty" x="{x.start}" y="{top}" width="{x.end - x.start:.1f}" height="{STRIP_HEIGHT}"/>'
        )
        parts += [
            f'<rect class="c{colour}" x="{x.place(start * step):.1f}" y="{top}" height="{STRIP_HEIGHT}" '
            f'width="{x.place(end * step) - x.place(start * step):.1f}" opacity="{shade / SHADES:.2f}"/>'
            for start, end, shade in _runs(values)
            if shade
        ]
    for tick in x.ticks():
        parts.append(f'<text class="x" x="{x.place(tick):.1f}" y="{height - 10}">{escape(x_label(tick))}</text>')
    return _svg(parts, height, title)


def _runs(values: Sequence[float]) -> list[tuple[int, int, int]]:
    """Neighbours of the same shade as one: from, to, shade."""
    runs: list[tuple[int, int, int]] = []
    for index, value in enumerate(values):
        shade = min(SHADES, math.ceil(value * SHADES - 1e-9))
        if runs and runs[-1][2] == shade:
            runs[-1] = (runs[-1][0], index + 1, shade)
        else:
            runs.append((index, index + 1, shade))
    return runs


def _grid(x: _Axis, y: _Axis, x_label: Label, y_label: Label) -> str:
    parts = []
    for tick in y.ticks():
        at = y.place(tick)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{at:.1f}" y2="{at:.1f}"/>')
        parts.append(f'<text class="y" x="{LEFT - 6}" y="{at + 3:.1f}">{escape(y_label(tick))}</text>')
    for tick in x.ticks():
        parts.append(f'<text class="x" x="{x.place(tick):.1f}" y="{HEIGHT - 10}">{escape(x_label(tick))}</text>')
    return "".join(parts)


def _svg(parts: Sequence[str], height: int, title: str) -> str:
    return (
        f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{escape(title)}">'
        f"<title>{escape(title)}</title>{''.join(parts)}</svg>"
    )
