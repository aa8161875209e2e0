"""The frame around plots: one page that needs nothing else; light or dark as readers have it."""

from collections.abc import Iterable, Sequence
from html import escape

STYLE = """
:root { color-scheme: light dark; --ground: #fbfbfa; --card: #ffffff; --ink: #1d2126; --soft: #667079; --rule: #e3e6e8;
  --c0: #2f6fde; --c1: #e07b26; --c2: #2a9d6f; --c3: #8a5bd6; }
@media (prefers-color-scheme: dark) { :root { --ground: #14171a; --card: #1c2024; --ink: #e8ebed; --soft: #98a2ab;
  --rule: #2d3339; --c0: #6ea2ff; --c1: #f0a15c; --c2: #5cc79b; --c3: #b493f0; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 32px 20px 64px; max-width: 1400px; background: var(--ground); color: var(--ink);
  font: 15px/1.5 system-ui, sans-serif; }
h1 { font-size: 24px; margin: 0 0 4px; } h2 { font-size: 16px; margin: 0 0 8px; }
p { margin: 0 0 8px; } .soft { color: var(--soft); }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(190px, 1fr)); gap: 12px; margin: 20px 0; }
.tile, .card { background: var(--card); border: 1px solid var(--rule); border-radius: 10px; padding: 14px 16px; }
.tile b { display: block; font-size: 19px; font-weight: 600; font-variant-numeric: tabular-nums; }
.tile b { white-space: nowrap; }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 520px), 1fr)); gap: 16px; }
.wide { grid-column: 1 / -1; overflow-x: auto; }
svg { width: 100%; height: auto; display: block; }
svg text { font: 11px system-ui, sans-serif; fill: var(--soft); }
.y, .name { text-anchor: end; } .x { text-anchor: middle; }
.grid { stroke: var(--rule); stroke-width: 1; } .empty { fill: var(--rule); opacity: 0.5; }
.line { fill: none; stroke-width: 1.6; stroke-linejoin: round; } .share { stroke: var(--ink); stroke-dasharray: 3 3; }
.c0 { fill: var(--c0); } .c1 { fill: var(--c1); } .c2 { fill: var(--c2); } .c3 { fill: var(--c3); }
.line.c0, .line.c1, .line.c2, .line.c3 { fill: none; }
.line.c0 { stroke: var(--c0); } .line.c1 { stroke: var(--c1); }
.line.c2 { stroke: var(--c2); } .line.c3 { stroke: var(--c3); }
.key i { display: inline-block; width: 10px; height: 10px; border-radius: 2px; margin: 0 5px 0 12px; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { text-align: right; padding: 4px 10px; border-bottom: 1px solid var(--rule); white-space: pre; }
td { vertical-align: top; }
th:first-child, td:first-child, .facts td { text-align: left; }
.facts td { white-space: normal; overflow-wrap: anywhere; }
.facts td:first-child { width: 34%; color: var(--soft); } th { color: var(--soft); font-weight: 500; }
.alarm { border-left: 4px solid #d64545; padding-left: 12px; } pre { overflow-x: auto; margin: 0; font-size: 12px; }
"""


def frame(title: str, introduction: str, tiles: Iterable[tuple[str, str]], cards: Iterable[str]) -> str:
    """A whole page.

    Args:
        title: as text.
        introduction: as HTML, below the title.
        tiles: numbers as text, each with its name.
        cards: as HTML.
    """
    shown = "".join(f'<div class="tile"><b>{escape(value)}</b>{escape(name)}</div>' for name, value in tiles)
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>{STYLE}</style></head><body>'
        f"<h1>{escape(title)}</h1>{introduction}"
        f'<div class="tiles">{shown}</div><div class="cards">{"".join(cards)}</div></body></html>\n'
    )


def card(title: str, body: str) -> str:
    """A plot, or whatever ``body`` is as HTML, with its title."""
    return f'<section class="card"><h2>{escape(title)}</h2>{body}</section>'


def key(names: Sequence[tuple[str, int]]) -> str:
    """Which colour is what."""
    marks = (f'<i style="background: var(--c{colour})"></i>{escape(name)}' for name, colour in names)
    return f'<p class="key soft">{"".join(marks)}</p>'


def table(title: str, heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A card as wide as the page; a line break in a cell is one."""
    head = "".join(f"<th>{escape(one)}</th>" for one in heads)
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f'<section class="card wide"><h2>{escape(title)}</h2><table><tr>{head}</tr>{body}</table></section>'


def facts(title: str, rows: Iterable[tuple[str, str]]) -> str:
    """A card as wide as the page with names and what is to be said of each, however long."""
    body = "".join(f"<tr><td>{escape(name)}</td><td>{escape(said)}</td></tr>" for name, said in rows)
    return f'<section class="card wide"><h2>{escape(title)}</h2><table class="facts">{body}</table></section>'
