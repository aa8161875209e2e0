"""A summary as one page that needs nothing else: no scripts, no fonts, no network; light or dark as readers have it."""

from collections.abc import Iterable, Sequence
from html import escape

from twinfer.simulator.summary import PER_DECADE, Percentiles, Summary
from twinfer.simulator.svg import Series, bars, lines, strips
from twinfer.simulator.units import in_bytes, in_seconds, money

MAX_STRIPS = 48

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
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(150px, 1fr)); gap: 12px; margin: 20px 0; }
.tile, .card { background: var(--card); border: 1px solid var(--rule); border-radius: 10px; padding: 14px 16px; }
.tile b { display: block; font-size: 22px; font-weight: 600; font-variant-numeric: tabular-nums; }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 520px), 1fr)); gap: 16px; }
.wide { grid-column: 1 / -1; overflow-x: auto; }
svg { width: 100%; height: auto; display: block; }
svg text { font: 11px system-ui, sans-serif; fill: var(--soft); }
.y, .name { text-anchor: end; } .x { text-anchor: middle; }
.grid { stroke: var(--rule); stroke-width: 1; } .empty { fill: var(--rule); opacity: 0.5; }
.line { fill: none; stroke-width: 1.6; stroke-linejoin: round; } .share { stroke: var(--soft); stroke-dasharray: 3 3; }
.c0 { fill: var(--c0); } .c1 { fill: var(--c1); } .c2 { fill: var(--c2); } .c3 { fill: var(--c3); }
.line.c0, .line.c1, .line.c2, .line.c3 { fill: none; }
.line.c0 { stroke: var(--c0); } .line.c1 { stroke: var(--c1); }
.line.c2 { stroke: var(--c2); } .line.c3 { stroke: var(--c3); }
.key i { display: inline-block; width: 10px; height: 10px; border-radius: 2px; margin: 0 5px 0 12px; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { text-align: right; padding: 4px 10px; border-bottom: 1px solid var(--rule); white-space: nowrap; }
th:first-child, td:first-child { text-align: left; } th { color: var(--soft); font-weight: 500; }
"""


def page(summary: Summary) -> str:
    """The whole page."""
    title = f"Simulation of {summary.trace}"
    cards = "".join(
        [*_over_time(summary), *_distributions(summary), *_strips(summary), _pools(summary), _workers(summary)]
    )
    outcomes = ", ".join(f"{number:,} {outcome}" for outcome, number in sorted(summary.outcomes.items()))
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>{STYLE}</style></head><body>'
        f"<h1>{escape(title)}</h1>"
        f'<p class="soft">{summary.requests:,} requests over {summary.arrivals_s:,.0f} s; {escape(outcomes)}. '
        f"Computed, not measured: the worst number used is of quality <b>{escape(summary.costs.quality)}</b>.</p>"
        f'<div class="tiles">{_tiles(summary)}</div><div class="cards">{cards}</div></body></html>\n'
    )


def _tiles(summary: Summary) -> str:
    costs = summary.costs
    energy = costs.kwh_per_million_output_tokens
    tiles = (
        ("TTFT p50 / p99", _pair(summary.ttft_s)),
        ("TPOT p50 / p99", _pair(summary.tpot_s)),
        ("output tokens per second", f"{summary.output_tokens_per_s:,.0f}"),
        ("within the SLO", f"{summary.slo_attained:.1%}"),
        ("goodput, requests per second", f"{summary.goodput_per_s:.3g}"),
        ("KV moved", in_bytes(summary.handoffs.num_bytes)),
        ("cost per million output tokens", money(costs.usd_per_million_output_tokens)),
        ("energy per million output tokens", "not known" if energy is None else f"{energy:.3g} kWh"),
    )
    return "".join(f'<div class="tile"><b>{escape(value)}</b>{escape(name)}</div>' for name, value in tiles)


def _pair(found: Percentiles) -> str:
    return f"{in_seconds(found.p50)} / {in_seconds(found.p99)}"


def _over_time(summary: Summary) -> Iterable[str]:
    timeline = summary.timeline
    for name, middle, high in (
        ("Time to first token", timeline.ttft_p50_s, timeline.ttft_p90_s),
        ("Time per output token", timeline.tpot_p50_s, timeline.tpot_p90_s),
    ):
        series = (Series("p50", middle, 0), Series("p90", high, 1))
        plot = lines(series, timeline.bin_s, _clock, in_seconds, f"{name} over time")
        yield _card(f"{name}, by arrival", _key(series) + plot)
    rate = Series("requests per second", [number / timeline.bin_s for number in timeline.arrivals], 2)
    plot = lines((rate,), timeline.bin_s, _clock, lambda value: f"{value:.3g}", "Arrivals over time")
    yield _card("Arrivals, requests per second", plot)


def _distributions(summary: Summary) -> Iterable[str]:
    for name, histogram, colour in (
        ("Time to first token", summary.histogram.ttft, 0),
        ("Time per output token", summary.histogram.tpot, 1),
        ("Gaps between tokens", summary.histogram.itl, 3),
    ):
        plot = bars(histogram, PER_DECADE, colour, in_seconds, f"Distribution: {name}")
        yield _card(f"{name}: distribution, and the share below (dashed)", plot)


def _strips(summary: Summary) -> Iterable[str]:
    shown, step = summary.workers[:MAX_STRIPS], summary.timeline.bin_s
    left_out = len(summary.workers) - len(shown)
    more = f" (the first {len(shown)} of {len(summary.workers)} workers)" if left_out else ""
    busy, held = [(one.name, one.busy) for one in shown], [(one.name, one.held) for one in shown]
    yield _card(f"Workers: time in steps{more}", strips(busy, 0, step, _clock, "Utilisation of each worker"))
    yield _card(f"Workers: KV held{more}", strips(held, 2, step, _clock, "KV held by each worker"))


def _pools(summary: Summary) -> str:
    heads = ("pool", "workers", "hardware", "link", "KV tokens each", "price per hour each", "power each", "quality")
    rows = [
        (
            pool.name,
            f"{pool.workers:,}",
            pool.hardware,
            pool.link,
            f"{pool.kv_tokens:,}",
            money(pool.price_per_hour),
            "not known" if pool.power_w is None else f"{pool.power_w / 1e3:.3g} kW",
            pool.quality,
        )
        for pool in summary.pools
    ]
    return _table("Hardware", heads, rows)


def _workers(summary: Summary) -> str:
    tokens = ("prompt tokens", "cached", "output tokens")
    heads = ("worker", "busy", "KV held", "peak", *tokens, "preempted", "KV in", "KV out")
    rows = [
        (
            one.name,
            f"{one.utilisation:.1%}",
            f"{one.kv_held_mean:.1%}",
            f"{one.kv_held_peak:.1%}",
            f"{one.prefill_tokens:,}",
            f"{one.cached_tokens:,}",
            f"{one.decode_tokens:,}",
            f"{one.preemptions:,}",
            in_bytes(one.bytes_in),
            in_bytes(one.bytes_out),
        )
        for one in summary.workers
    ]
    return _table("Workers", heads, rows)


def _card(title: str, body: str) -> str:
    return f'<section class="card"><h2>{escape(title)}</h2>{body}</section>'


def _key(series: Sequence[Series]) -> str:
    marks = (f'<i style="background: var(--c{one.colour})"></i>{escape(one.name)}' for one in series)
    return f'<p class="key soft">{"".join(marks)}</p>'


def _table(title: str, heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    head = "".join(f"<th>{escape(one)}</th>" for one in heads)
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f'<section class="card wide"><h2>{escape(title)}</h2><table><tr>{head}</tr>{body}</table></section>'


def _clock(seconds: float) -> str:
    return f"{seconds / 60:.3g} min" if seconds >= 60 else f"{seconds:.3g} s"
