"""A result as one page that needs nothing else."""

import math
import random
from collections import Counter
from collections.abc import Iterable, Sequence
from html import escape

from twinfer.loadtest.record import Record
from twinfer.loadtest.result import Result, Trial
from twinfer.loadtest.statistics import Distribution, Estimate
from twinfer.loadtest.summary import gaps_s, measured
from twinfer.loadtest.units import percent, seconds, span
from twinfer.plots.page import card, facts, frame, key, table
from twinfer.plots.svg import bars
from twinfer.plots.xy import Axis, Point, Points, cloud, curves

PER_DECADE = 20
MAX_DOTS = 4000
"""Beyond it a cloud shows requests drawn at random; everything else counts all of them."""
CLOCK = Axis("seconds from the start", lambda value: f"{value:g}")
LATENCY = Axis("", seconds, log=True)


def page(result: Result) -> str:
    """The whole page."""
    trial = result.main
    cards = [
        *_over_time(trial),
        *_distributions(trial),
        *_sweep(result.trials),
        _percentiles(trial),
        *_errors(trial),
        _client(trial),
        _conditions(result),
    ]
    return frame(f"{result.name}: {trial.load.described}", _introduction(result), _tiles(result), cards)


def _introduction(result: Result) -> str:
    trial, target = result.main, result.target
    asked = f"{target.url}, {target.model} by {target.api}; {result.began}"
    said = f'<p class="soft">{escape(asked)}; measured by the client, with intervals of 95 % confidence.</p>'
    for sentence in (
        trial.invalid and f"Invalid: {trial.invalid}",
        trial.stopped and f"Ended early: {trial.stopped}",
    ):
        said += f'<p class="alarm">{escape(sentence)}</p>' if sentence else ""
    return said


def _tiles(result: Result) -> Iterable[tuple[str, str]]:
    found = result.main.summary
    yield "TTFT p50 / p99", _pair(found.ttft)
    yield "TPOT p50 / p99", _pair(found.tpot)
    yield "output tokens per second", f"{found.output_tokens_per_s:,.4g}"
    yield "requests per second", f"{found.requests_per_s:.3g}"
    if found.attained is not None:
        yield "within the objectives", percent(found.attained.value)
        yield "goodput, requests per second", f"{found.goodput_per_s:.3g}"
    if result.searched:
        yield "highest rate that holds", "none" if result.best_rate is None else f"{result.best_rate:.3g} /s"
    yield "errors", f"{sum(found.errors.values()):,} of {found.requests:,}"
    if (costs := found.costs) is not None:
        if costs.per_million_output is not None:
            yield "per million output tokens", f"{costs.per_million_output:.3g} {costs.currency}"
        if costs.joule_per_output_token is not None:
            yield "energy per output token", f"{costs.joule_per_output_token:.3g} J"


def _pair(found: Distribution | None) -> str:
    return "-" if found is None else f"{seconds(found.p50.value)} / {seconds(found.p99.value)}"


def _over_time(trial: Trial) -> Iterable[str]:
    good = [one for one in measured(trial.records) if one.error is None]
    shown = good if len(good) <= MAX_DOTS else random.Random(0).sample(good, MAX_DOTS)
    for name, colour, points in (
        ("Time to first token", 0, [Point(one.sent_s, one.ttft_s) for one in shown if one.ttft_s]),
        ("Time per output token", 1, [Point(one.sent_s, one.tpot_s) for one in shown if one.tpot_s]),
        ("End to end", 2, [Point(one.sent_s, one.e2e_s) for one in shown]),
    ):
        if points:
            sets = (Points(name, points, colour),)
            yield card(f"{name}, by when the request was sent", cloud(sets, CLOCK, LATENCY, f"{name} over time"))


def _distributions(trial: Trial) -> Iterable[str]:
    good = [one for one in measured(trial.records) if one.error is None]
    for name, colour, values in (
        ("Time to first token", 0, [one.ttft_s for one in good if one.ttft_s]),
        ("Time per output token", 1, [one.tpot_s for one in good if one.tpot_s]),
        ("Gaps between arrivals of text", 3, [gap for one in good for gap in gaps_s(one)]),
    ):
        if histogram := _histogram(values):
            plot = bars(histogram, PER_DECADE, colour, seconds, f"Distribution: {name}")
            yield card(f"{name}: distribution, and the share below (dashed)", plot)


def _histogram(values: Sequence[float]) -> list[tuple[float, int]]:
    """Lower bounds of bins on a logarithmic axis with their counts; what is 0 counts as a microsecond."""
    counts = Counter(math.floor(math.log10(max(1e-6, value)) * PER_DECADE) for value in values)
    return [(10 ** (index / PER_DECADE), counts[index]) for index in sorted(counts)]


def _sweep(trials: Sequence[Trial]) -> Iterable[str]:
    """Several rates: what each did to latency, and what users and the server had of it."""
    by_rate = sorted((one for one in trials if one.summary.ttft is not None), key=lambda one: one.load.rate)
    if len(by_rate) < 2:
        return
    rate = Axis("requests per second", lambda value: f"{value:.3g}")
    for name, found in (
        ("TTFT", [(one.load.rate, one.summary.ttft) for one in by_rate]),
        ("TPOT", [(one.load.rate, one.summary.tpot) for one in by_rate]),
    ):
        known = [(at, one) for at, one in found if one is not None]
        sets = [
            Points("p50", [Point(at, one.p50.value) for at, one in known], 0),
            Points("p90", [Point(at, one.p90.value) for at, one in known], 1),
            Points("p99", [Point(at, one.p99.value) for at, one in known], 3),
        ]
        plot = curves(sets, rate, LATENCY, f"{name} by rate")
        yield card(f"{name} by rate", key([(some.name, some.colour) for some in sets]) + plot)
    throughput = Axis("tokens per second of one user (median), after the first", lambda value: f"{value:.3g}")
    points = [
        Point(one.summary.user_tokens_per_s, one.summary.output_tokens_per_s, f"{one.load.rate:.3g}/s")
        for one in by_rate
    ]
    plot = curves((Points("rates", points, 2),), throughput, Axis("", lambda value: f"{value:.3g}"), "Pareto")
    yield card("Output tokens per second of all, by what one user gets", plot)
    if all(one.summary.attained is not None for one in by_rate):
        shares = [Point(one.load.rate, one.summary.attained.value) for one in by_rate if one.summary.attained]
        plot = curves((Points("within", shares, 2),), rate, Axis("", lambda value: f"{value:.0%}"), "Attainment")
        yield card("Requests within the objectives, by rate", plot)


def _percentiles(trial: Trial) -> str:
    found = trial.summary
    named = (("TTFT", found.ttft), ("gaps (ITL)", found.itl), ("TPOT", found.tpot), ("end to end", found.e2e))
    rows = [
        (name, f"{one.count:,}", *(_beside(each) for each in (one.mean, one.p50, one.p90, one.p95, one.p99)))
        for name, one in named
        if one is not None
    ]
    return table("Percentiles", ("", "values", "mean", "p50", "p90", "p95", "p99"), rows)


def _beside(found: Estimate) -> str:
    """A number, and below it where it lies."""
    return f"{seconds(found.value)}\n{span(found, seconds)}"


def _errors(trial: Trial) -> Iterable[str]:
    failed: dict[str, list[Record]] = {}
    for record in measured(trial.records):
        if record.error is not None:
            failed.setdefault(record.error.value, []).append(record)
    if failed:
        rows = [(f"{len(some):,} {kind}, the first one", some[0].message) for kind, some in failed.items()]
        yield facts("Errors", rows)


def _client(trial: Trial) -> str:
    lag, found = trial.lag, trial.summary
    rows = [
        (
            "requests sent late, p50 / p99 / most",
            " / ".join(map(seconds, (lag.send_p50_s, lag.send_p99_s, lag.send_max_s))),
        ),
        ("event loop late, p99 / most", f"{seconds(lag.loop_p99_s)} / {seconds(lag.loop_max_s)}"),
        ("of a core used", percent(lag.cpu_share)),
        ("tokens in an arrival of text", f"{found.tokens_per_arrival:.2f}"),
        ("tokens in / out, as reported" if found.reported else "tokens out, by events", _tokens(trial)),
        ("events with text", f"{found.counted_tokens:,}"),
        *((f"route {name}", f"{number:,}") for name, number in found.routes.items()),
    ]
    return facts("The client, and what it counted", rows)


def _tokens(trial: Trial) -> str:
    found = trial.summary
    return f"{found.input_tokens:,} / {found.output_tokens:,}" if found.reported else f"{found.output_tokens:,}"


def _conditions(result: Result) -> str:
    machine, work = result.machine, result.work
    source = f"{work.source} {work.file}".strip()
    rows = [
        ("command", " ".join(result.command)),
        ("work", f"{source}; input {work.input}, output {work.output}, {work.turns} turns, seed {work.seed}"),
        ("client", f"twinfer {machine.twinfer} {machine.revision}, Python {machine.python}, {machine.system}"),
        ("machine", f"{machine.processor}, {machine.cores} cores, {machine.memory_gib:g} GiB"),
    ]
    return facts("Conditions", rows)
