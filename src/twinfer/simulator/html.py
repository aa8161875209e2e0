"""A summary as one page that needs nothing else: no scripts, no fonts, no network; light or dark as readers have it."""

from collections.abc import Iterable, Sequence
from html import escape

from twinfer.plots.page import card, frame, key, table
from twinfer.plots.svg import Series, bars, lines, strips
from twinfer.simulator.summary import PER_DECADE, Percentiles, Summary
from twinfer.simulator.units import in_bytes, in_seconds, money

MAX_STRIPS = 48


def page(summary: Summary) -> str:
    """The whole page."""
    title = f"Simulation of {summary.trace}"
    cards = [*_over_time(summary), *_distributions(summary), *_strips(summary), _pools(summary), _workers(summary)]
    outcomes = ", ".join(f"{number:,} {outcome}" for outcome, number in sorted(summary.outcomes.items()))
    introduction = (
        f'<p class="soft">{summary.requests:,} requests over {summary.arrivals_s:,.0f} s; {escape(outcomes)}. '
        f"Computed, not measured: the worst number used is of quality <b>{escape(summary.costs.quality)}</b>.</p>"
    )
    return frame(title, introduction, _tiles(summary), cards)


def _tiles(summary: Summary) -> Sequence[tuple[str, str]]:
    costs = summary.costs
    energy = costs.kwh_per_million_output_tokens
    return (
        ("TTFT p50 / p99", _pair(summary.ttft_s)),
        ("TPOT p50 / p99", _pair(summary.tpot_s)),
        ("output tokens per second", f"{summary.output_tokens_per_s:,.0f}"),
        ("within the SLO", f"{summary.slo_attained:.1%}"),
        ("goodput, requests per second", f"{summary.goodput_per_s:.3g}"),
        ("KV moved", in_bytes(summary.handoffs.num_bytes)),
        ("cost per million output tokens", money(costs.usd_per_million_output_tokens)),
        ("energy per million output tokens", "not known" if energy is None else f"{energy:.3g} kWh"),
    )


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
        yield card(f"{name}, by arrival", key([(one.name, one.colour) for one in series]) + plot)
    rate = Series("requests per second", [number / timeline.bin_s for number in timeline.arrivals], 2)
    plot = lines((rate,), timeline.bin_s, _clock, lambda value: f"{value:.3g}", "Arrivals over time")
    yield card("Arrivals, requests per second", plot)


def _distributions(summary: Summary) -> Iterable[str]:
    for name, histogram, colour in (
        ("Time to first token", summary.histogram.ttft, 0),
        ("Time per output token", summary.histogram.tpot, 1),
        ("Gaps between tokens", summary.histogram.itl, 3),
    ):
        plot = bars(histogram, PER_DECADE, colour, in_seconds, f"Distribution: {name}")
        yield card(f"{name}: distribution, and the share below (dashed)", plot)


def _strips(summary: Summary) -> Iterable[str]:
    shown, step = summary.workers[:MAX_STRIPS], summary.timeline.bin_s
    left_out = len(summary.workers) - len(shown)
    more = f" (the first {len(shown)} of {len(summary.workers)} workers)" if left_out else ""
    busy, held = [(one.name, one.busy) for one in shown], [(one.name, one.held) for one in shown]
    yield card(f"Workers: time in steps{more}", strips(busy, 0, step, _clock, "Utilisation of each worker"))
    yield card(f"Workers: KV held{more}", strips(held, 2, step, _clock, "KV held by each worker"))


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
    return table("Hardware", heads, rows)


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
    return table("Workers", heads, rows)


def _clock(seconds: float) -> str:
    return f"{seconds / 60:.3g} min" if seconds >= 60 else f"{seconds:.3g} s"
