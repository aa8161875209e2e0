"""A summary for the terminal."""

from collections.abc import Iterator, Mapping

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from twinfer.simulator.summary import Percentiles, Summary
from twinfer.simulator.units import in_bytes, in_seconds, money

MAX_WORKERS = 16


def report(summary: Summary) -> RenderableType:
    """Tables: what was simulated, what clients saw, what workers did."""
    return Group(*_head(summary), _latencies(summary), _workers(summary), *_foot(summary))


def _head(summary: Summary) -> Iterator[Text]:
    yield Text(f"{summary.requests} requests of {summary.trace} in {summary.duration_s:.1f} s of virtual time")
    for pool in summary.pools:
        yield Text(
            f"  {pool.name}: {pool.workers} workers, each {pool.hardware}; KV of {pool.kv_tokens:,} tokens, "
            f"link {pool.link}, numbers of quality {pool.quality}"
        )


def _latencies(summary: Summary) -> Table:
    table = _table("", "mean", "p50", "p90", "p99")
    rows: tuple[tuple[str, Percentiles], ...] = (
        ("TTFT", summary.ttft_s),
        ("TPOT", summary.tpot_s),
        ("ITL", summary.itl_s),
        ("seal to commit", summary.handoffs.exposed_s),
    )
    for name, found in rows:
        table.add_row(name, *(in_seconds(value) for value in (found.mean, found.p50, found.p90, found.p99)))
    return table


def _workers(summary: Summary) -> Table:
    heads = ("worker", "busy", "KV held", "peak", "prompt tokens", "cached", "output", "KV in", "KV out")
    table = _table(*heads)
    for worker in summary.workers[:MAX_WORKERS]:
        table.add_row(
            worker.name,
            f"{worker.utilisation:.1%}",
            f"{worker.kv_held_mean:.1%}",
            f"{worker.kv_held_peak:.1%}",
            f"{worker.prefill_tokens:,}",
            f"{worker.cached_tokens:,}",
            f"{worker.decode_tokens:,}",
            in_bytes(worker.bytes_in),
            in_bytes(worker.bytes_out),
        )
    if len(summary.workers) > MAX_WORKERS:
        table.add_row(f"and {len(summary.workers) - MAX_WORKERS} more")
    return table


def _table(*heads: str) -> Table:
    table = Table(*heads, box=None, pad_edge=False, header_style="bold")
    for column in table.columns:
        column.no_wrap = True
        column.justify = "left" if column is table.columns[0] else "right"
    return table


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{number:,} {name}" for name, number in sorted(counts.items()))


def _foot(summary: Summary) -> Iterator[Text]:
    yield Text(
        f"outcomes: {_counts(summary.outcomes)}; {summary.disaggregated} disaggregated, {summary.recovered} recovered"
    )
    yield Text(
        f"rates: {summary.requests_per_s:.3g} requests/s, {summary.input_tokens_per_s:,.0f} prompt tokens/s, "
        f"{summary.output_tokens_per_s:,.0f} output tokens/s"
    )
    bounds = [(name, bound) for name, bound in (("TTFT", summary.slo.ttft_s), ("TPOT", summary.slo.tpot_s)) if bound]
    said = " and ".join(f"{name} <= {in_seconds(bound)}" for name, bound in bounds) or "none, any answer counts"
    yield Text(f"SLO: {said}; {summary.slo_attained:.1%} within it, goodput {summary.goodput_per_s:.3g} requests/s")
    handoffs, costs = summary.handoffs, summary.costs
    fetches = f"; fetches of prefixes: {_counts(handoffs.fetches)}" if handoffs.fetches else ""
    yield Text(f"KV: {handoffs.number} handoffs of {in_bytes(handoffs.num_bytes)}{fetches}")
    if handoffs.replans:
        yield Text(f"routed again: {_counts(handoffs.replans)}")
    per_million = money(costs.usd_per_million_output_tokens)
    if costs.usd_per_million_output_tokens is None:
        per_million = f"not known, for want of prices for {', '.join(costs.unpriced)}"
    energy = costs.kwh_per_million_output_tokens
    said = "not known" if energy is None else f"{energy:.3g} kWh at nameplate power"
    yield Text(f"per million output tokens: cost {per_million}; energy {said}; worst number used: {costs.quality}")
