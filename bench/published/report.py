"""docs/benchmarks.md: ``page.md`` beside this file with what was measured, and what stays out with the reason."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from string import Template

from bench.markdown import table
from bench.published.outcome import Measure, Outcome, interactive, standard
from bench.published.standing import Duel, Entry, Standing, overall
from bench.published.systems import CHUNK_TOKENS, KV_MIB
from bench.published.versions import versions
from bench.published.workloads import INTERACTIVE_TPOT_S, Workload
from bench.svg import Bar, Labels, bars
from twinfer.loadtest.statistics import Distribution, Estimate

TEMPLATE = Path(__file__).with_name("page.md")
FIGURE = "benchmarks-goodput.svg"
HEADS = (
    "system",
    "weights",
    ">goodput",
    ">interactive",
    ">in time",
    ">TTFT p50 / p99",
    ">TPOT p50 / p99",
    ">ITL p99",
    ">tokens/s",
    ">failed",
)
MEASURES: Sequence[tuple[str, Measure]] = (("stated", standard), ("interactive", interactive))
"""What rows are compared by, as it is called in tables."""
PRECISIONS = ("bf16", "bf16 + int8", "int8", "int4")


def page(standing: Standing) -> str:
    """The whole text."""
    results = list(standing.results.values())
    machine = results[0].machine if results else None
    searched = standing.manner.search
    return Template(TEMPLATE.read_text(encoding="utf-8")).substitute(
        command=f"make bench{'-full' if searched else ''}",
        when=f" on {min(one.began for one in results)[:10]}" if results else "",
        cores=machine.cores if machine else "its",
        machine=f"{machine.processor}, {machine.memory_gib:g} GiB" if machine else "nothing was measured",
        measure=_measure(searched),
        summary="\n".join(_summary(standing)),
        duels="\n".join(_duels(standing)),
        fast=f"{1e3 * INTERACTIVE_TPOT_S:g}",
        topologies="\n".join(_topologies(standing)),
        workloads="\n".join(_workloads(standing)),
        timeout=f"{standing.manner.timeout_s:g}",
        kv=KV_MIB // 1024,
        chunk=CHUNK_TOKENS,
        tables="\n".join(line for workload in standing.workloads for line in _rows(standing, workload)),
        versions="\n".join(versions(results)),
    )


def figures(standing: Standing) -> Mapping[str, str]:
    """One bar for each system and workload, by file name."""
    rows = [
        Bar(workload.title, entry.system.title, entry.system.precision, entry.outcome.goodput.value, _is_ours(entry))
        for workload in standing.workloads
        for entry in standing.entries(workload)
    ]
    unit = "highest rate that holds the objectives for 90 %" if standing.manner.search else "goodput"
    labels = Labels("Requests per second within the objectives", "blue: Twinfer, grey: peers", f"{unit}, requests/s")
    return {FIGURE: bars(labels, rows)}


def _measure(searched: bool) -> str:
    if searched:
        return "the highest rate, in requests per second, at which 90 % of the requests are within the objectives"
    return "goodput is requests per second within the objectives, at the rate stated below"


def _summary(standing: Standing) -> Iterator[str]:
    """Sentences that an evaluator can quote; a peer that is better is named."""
    for objectives, measure in MEASURES:
        for precision in PRECISIONS:
            duels = standing.duels(precision, measure)
            if not duels:
                continue
            mean = overall(duels)
            said = f"**{mean:.2f} times the best peer** over all workloads" if mean else "no mean, as one is at nothing"
            parts = [f"{one.workload.title} {_times(one)}{_named(one)}" for one in duels]
            yield f"- {precision}, {objectives} objectives: {said}; {', '.join(parts)}."
    for system in standing.systems:
        cells = [one for one in standing.cells if one.system == system]
        if not any(one in standing.outcomes for one in cells):
            yield f"- {system.title} ({system.precision}) is missing, {standing.failure(cells[0])}."


def _named(duel: Duel) -> str:
    return f" (**{duel.theirs.system.title} is ahead**)" if duel.verdict == "behind" else ""


def _times(duel: Duel) -> str:
    return "alone" if duel.ratio == float("inf") else f"{duel.ratio:.2f}"


def _duels(standing: Standing) -> list[str]:
    heads = (
        "workload",
        "weights",
        "objectives",
        "Twinfer's best",
        ">goodput",
        "best peer",
        ">goodput",
        ">ratio",
        "Twinfer is",
    )
    rows = [
        (
            one.workload.title,
            one.precision,
            objectives,
            one.ours.system.title.removeprefix("Twinfer, "),
            _goodput(one.goodputs[0]),
            one.theirs.system.title,
            _goodput(one.goodputs[1]),
            _times(one),
            f"**{one.verdict}**" if one.verdict == "behind" else one.verdict,
        )
        for precision in PRECISIONS
        for objectives, measure in MEASURES
        for one in standing.duels(precision, measure)
    ]
    return table(heads, rows)


def _topologies(standing: Standing) -> list[str]:
    roles = (("bf16", "disaggregated"), ("bf16", "aggregated"), ("bf16", "routed"), ("bf16 + int8", "specialised"))
    heads = (
        "workload",
        "objectives",
        ">apart",
        ">together, the better of two",
        ">router free",
        ">bf16 prefill, int8 decode",
    )
    rows = []
    for workload in standing.workloads:
        for objectives, measure in MEASURES:
            found = [standing.chosen(workload, *role, measure) for role in roles]
            if any(found):
                cells = ("-" if one is None else _goodput(measure(one.outcome)) for one in found)
                rows.append((workload.title, objectives, *cells))
    return table(heads, rows)


def _workloads(standing: Standing) -> list[str]:
    heads = ("workload", "what", ">rate", ">for", ">TTFT within", ">TPOT within")
    search, rows = standing.manner.search, []
    for one in standing.workloads:
        goals = one.objectives
        rate = f"searched, from {one.rate:g}/s" if search else f"{one.rate:g}/s"
        span = f"{standing.manner.seconds(one):g} s"
        rows.append((one.title, one.said, rate, span, f"{goals.ttft_s:g} s", f"{1e3 * (goals.tpot_s or 0):g} ms"))
    return table(heads, rows)


def _rows(standing: Standing, workload: Workload) -> Iterator[str]:
    yield f"### {workload.title.capitalize()}"
    yield ""
    rows = []
    for cell in (one for one in standing.cells if one.workload == workload):
        system, found = cell.system, standing.outcomes.get(cell)
        if found is None:
            rows.append((system.title, system.precision, standing.failure(cell), *[""] * 7))
        else:
            rows.append((system.title, system.precision, *_cells(found)))
    yield from table(HEADS, rows)
    doubts = {one.system.title: one.outcome.doubt for one in standing.entries(workload) if one.outcome.doubt}
    if doubts:
        yield ""
        yield from (f"(!) {title}: {doubt}." for title, doubt in doubts.items())
    yield ""


def _cells(found: Outcome) -> Sequence[str]:
    mark = " (!)" if found.doubt else ""
    return (
        _goodput(found.goodput) + mark,
        _goodput(found.interactive),
        f"{found.attained:.0%}",
        _pair(found.ttft, 1.0, "s", 2),
        _pair(found.tpot, 1e3, "ms", 0),
        "-" if found.itl is None else f"{1e3 * found.itl.p99.value:,.0f} ms",
        f"{found.tokens_per_s:,.0f}",
        f"{found.errors} of {found.requests}" if found.errors else f"0 of {found.requests}",
    )


def _goodput(found: Estimate | None) -> str:
    if found is None:
        return "-"
    return f"{found.value:.2f} ({found.low:.2f} to {found.high:.2f})"


def _pair(found: Distribution | None, factor: float, unit: str, digits: int) -> str:
    if found is None:
        return "-"
    return f"{factor * found.p50.value:,.{digits}f} / {factor * found.p99.value:,.{digits}f} {unit}"


def _is_ours(entry: Entry) -> bool:
    return entry.system.maker == "twinfer"
