"""What people see on a terminal: how it goes, a table at the end, what counts and what does not."""

from collections.abc import Iterable

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from twinfer.loadtest.arrivals import LoadSpec
from twinfer.loadtest.compare import Comparison
from twinfer.loadtest.result import Result, Trial
from twinfer.loadtest.runner import Progress
from twinfer.loadtest.statistics import Distribution, percentile
from twinfer.loadtest.units import interval, percent, seconds, span

RECENT = 200
"""Requests that the live view sums up."""


class Show:
    """Tells how a run goes; plain lines where there is no terminal."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live = Live(console=console, auto_refresh=False, transient=True) if console.is_terminal else None

    def __enter__(self) -> "Show":
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()

    def looked(self, load: LoadSpec, progress: Progress, elapsed_s: float) -> None:
        """So far."""
        if self._live is not None:
            self._live.update(_live(load, progress, elapsed_s), refresh=True)

    def ended(self, trial: Trial) -> None:
        """A load is over."""
        found, ttft, tpot = trial.summary, trial.summary.ttft, trial.summary.tpot
        said = f"{trial.load.described}: {found.requests} requests, {sum(found.errors.values())} errors"
        if ttft is not None:
            said += f", TTFT p50 {seconds(ttft.p50.value)} p99 {seconds(ttft.p99.value)}"
        if tpot is not None:
            said += f", TPOT p50 {seconds(tpot.p50.value)}"
        if found.attained is not None:
            said += f", {found.attained.value:.1%} within the objectives"
        self._console.print(Text(said), soft_wrap=True)


def _live(load: LoadSpec, progress: Progress, elapsed_s: float) -> Group:
    recent = progress.records[-RECENT:]
    table = Table.grid(padding=(0, 2))
    errors = sum(one.error is not None for one in progress.records)
    table.add_row("load", load.described, "elapsed", f"{elapsed_s:.0f} s")
    table.add_row("answered", f"{len(progress.records) - errors:,}", "in flight", f"{progress.in_flight:,}")
    ttfts = sorted(one.ttft_s for one in recent if one.ttft_s is not None)
    tpots = sorted(one.tpot_s for one in recent if one.tpot_s is not None)
    table.add_row("TTFT p50, p99", _pair(ttfts), "TPOT p50, p99", _pair(tpots))
    lags = sorted(one.lag_s for one in recent)
    table.add_row(
        "errors", Text(f"{errors:,}", "red" if errors else ""), "client lag p99", seconds(percentile(lags, 99))
    )
    if progress.planned_s is None:
        return Group(table)
    return Group(table, ProgressBar(progress.planned_s, min(elapsed_s, progress.planned_s), width=60))


def _pair(ordered: list[float]) -> str:
    return f"{seconds(percentile(ordered, 50))}, {seconds(percentile(ordered, 99))}" if ordered else "-"


def result_lines(result: Result) -> Iterable[Table | Text]:
    """The table at the end and all that has to be said with it."""
    trial = result.main
    found = trial.summary
    table = Table(
        "",
        "p50",
        "p90",
        "p95",
        "p99",
        title=f"{result.name}: {trial.load.described}",
    )
    for column in table.columns[1:]:
        column.justify = "right"
    for name, one in (("TTFT", found.ttft), ("ITL", found.itl), ("TPOT", found.tpot), ("end to end", found.e2e)):
        if one is not None:
            table.add_row(name, *_cells(one))
    yield table
    yield Text(
        "Below each number: where it lies with 95 % confidence. ITL: from one arrival of text to the next. "
        "TPOT: from the first text to the last, per token."
    )
    for line in _facts(result):
        yield Text(line)
    for kind, number in found.errors.items():
        said = next((one.message for one in trial.records if one.error == kind), "")
        yield Text(f"{number} x {kind}: {said}", "red")
    if trial.stopped:
        yield Text(f"ended early: {trial.stopped}; what was measured so far is above", "yellow")
    if trial.invalid:
        yield Text(f"INVALID: {trial.invalid}", "bold red")


def _facts(result: Result) -> Iterable[str]:
    trial, found = result.main, result.main.summary
    counted = "as the server counts" if found.reported else "counted by events"
    yield (
        f"{found.requests:,} requests in {found.duration_s:.1f} s: {found.requests_per_s:.4g} requests/s, "
        f"{found.output_tokens_per_s:,.4g} output tokens/s; {found.input_tokens:,} tokens in, "
        f"{found.output_tokens:,} out, {counted}; {found.tokens_per_arrival:.2f} tokens an arrival"
    )
    if found.attained is not None:
        within = interval(found.attained, percent)
        yield f"goodput {found.goodput_per_s:.4g} requests/s; within the objectives: {within}"
    if result.searched:
        share = f"{result.objectives.attainment:.0%}"
        yield (
            f"highest rate with {share} within the objectives: {result.best_rate:.4g} requests/s"
            if result.best_rate is not None
            else f"no rate that was tried kept the objectives for {share} of the requests"
        )
    if found.routes:
        yield "routes: " + ", ".join(f"{name} {number:,}" for name, number in found.routes.items())
    if (costs := found.costs) is not None:
        if costs.per_million_output is not None:
            yield f"cost: {costs.per_million_output:.4g} {costs.currency} per million output tokens"
        if costs.joule_per_output_token is not None:
            yield f"energy: {costs.joule_per_output_token:.3g} J per output token"
    lag = trial.lag
    yield (
        f"client: sent {seconds(lag.send_p99_s)} late at p99 and {seconds(lag.send_max_s)} at most, event loop "
        f"{seconds(lag.loop_p99_s)} and {seconds(lag.loop_max_s)}, {lag.cpu_share:.0%} of a core"
    )


def _cells(found: Distribution) -> Iterable[str]:
    shown = (found.p50, found.p90, found.p95, found.p99)
    return (f"{seconds(one.value)}\n[dim]{span(one, seconds)}[/]" for one in shown)


def comparison_lines(found: Comparison) -> Iterable[Table | Text]:
    """The table of changes and the verdict."""
    table = Table("", "before", "after", "change", "interval", "", title=f"{found.twins:,} requests of both runs")
    for column in table.columns[1:5]:
        column.justify = "right"
    for one in found.changes:
        span = f"{one.change.low:+.1%} to {one.change.high:+.1%}"
        said = Text("differs", "red" if one.change.value > 0 else "green") if one.differs else Text("")
        table.add_row(one.name, seconds(one.before), seconds(one.after), f"{one.change.value:+.1%}", span, said)
    yield table
    yield Text(
        f"all intervals together hold with 95 % confidence; a change counts if all of its interval is beyond "
        f"{found.margin:.0%}"
    )
    yield Text(found.verdict, "bold")
