"""What ``twinfer chaos`` shows: how far it is, a table at the end, and one line that says whether all is well."""

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from twinfer.chaos.judge import Verdict
from twinfer.chaos.plan import Event
from twinfer.chaos.report import MAX_SHOWN, UNDISTURBED, Report, Row

MAX_SAID = 5
COLUMNS = ("event", "target", "events", "in flight", *Verdict, "recovered", "slowest recovery")


class Show:
    """Tells people on a terminal; plain lines where there is none."""

    def __init__(self, console: Console, num_events: int) -> None:
        self._console = console
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        self.progress = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
        self._references = self.progress.add_task("undisturbed answers", total=None)
        self._events = self.progress.add_task("events", total=num_events, visible=False)

    def asked(self, number: int, total: int) -> None:
        """So many of the questions have their references."""
        self.progress.update(self._references, completed=number, total=total)
        if number == total:
            self._say(f"{total} questions answered undisturbed, twice each and alike")
            self.progress.update(self._references, visible=False)
            self.progress.update(self._events, visible=True)

    def striking(self, number: int, event: Event) -> None:
        """An event begins."""
        self.progress.update(self._events, completed=number, description=str(event))

    def overcome(self, number: int, event: Event, in_flight: int, recovery_s: float) -> None:
        """The deployment is whole again."""
        self.progress.update(self._events, completed=number + 1)
        if not self._console.is_terminal:
            self._say(f"{number + 1:>4}  {event}: {in_flight} in flight, whole again in {recovery_s:.1f} s")

    def found(self, sentence: str) -> None:
        """Something that must not be."""
        self._say(sentence, "red")

    def result(self, report: Report) -> None:
        """The table, the worst of it, and the verdict."""
        self._console.print(_table(report))
        if report.restarts:
            counts = ", ".join(f"{name} ({number})" for name, number in sorted(report.restarts.items()))
            self._say(f"started again, how often: {counts}")
        for reason, number in report.refusals.most_common(MAX_SAID):
            self._say(f"refused {number} times: {reason}")
        for bad in report.bad[:MAX_SAID]:
            self._say(f"{bad['verdict']}, {bad['event']}: {bad['reason']}", "red")
        hidden = min(MAX_SHOWN, len(report.bad)) - MAX_SAID
        if hidden > 0:
            self._say(f"and {hidden} more; --json FILE keeps them", "red")
        for sentence in report.findings:
            self._say(f"finding: {sentence}", "red")
        self._say(report.verdict, "bold green" if report.clean else "bold red")

    def _say(self, text: str, style: str = "") -> None:
        self._console.print(Text(text, style), soft_wrap=True)


def _table(report: Report) -> Table:
    table = Table(*COLUMNS[:2])
    for name in COLUMNS[2:]:
        table.add_column(str(name), justify="right")
    for (kind, role), row in sorted(report.rows.items(), key=lambda item: (item[0] == UNDISTURBED, item[0])):
        table.add_row(kind, role, *_cells(row))
    table.add_section()
    table.add_row("all", "", *_cells(report.total))
    return table


def _cells(row: Row) -> list[str]:
    answers = [str(row.answers[verdict]) for verdict in Verdict]
    return [str(row.events), str(row.in_flight), *answers, str(row.recovered), f"{row.slowest_s:.1f} s"]
