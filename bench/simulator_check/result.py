"""What a check found, kept beside this file, and the section of docs/validation.md that tells it."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from bench.markdown import table
from bench.simulator_check.compare import Row

FOUND = Path(__file__).parent / "found"
KINDS = ("emulated", "native")


class Result(msgspec.Struct, frozen=True):
    """One check.

    Args:
        kind: ``emulated`` or ``native``.
        command: that made it.
        where: the machine, and how busy it was with other work.
        what: the deployment.
        fitted_on, tried_on: the workloads.
        parameters: that were fitted, by name.
        steadiness: of the machine meanwhile, as a sentence.
        rows: of the workload that the fit has not seen.
    """

    kind: str
    command: str
    where: str
    what: str
    fitted_on: str
    tried_on: str
    repetitions: int
    parameters: dict[str, float]
    rows: tuple[Row, ...]
    steadiness: str = ""

    @property
    def kept(self) -> bool:
        """Whether all bars are."""
        return all(row.kept for row in self.rows)


def write(result: Result, folder: Path = FOUND) -> None:
    """Keep it."""
    folder.mkdir(exist_ok=True)
    (folder / f"{result.kind}.json").write_bytes(msgspec.json.format(msgspec.json.encode(result)) + b"\n")


def read(folder: Path = FOUND) -> list[Result]:
    """Those that were kept."""
    paths = [folder / f"{kind}.json" for kind in KINDS]
    return [msgspec.json.decode(path.read_bytes(), type=Result) for path in paths if path.exists()]


def section(results: Sequence[Result]) -> list[str]:
    """Lines of the page: a part for each, and a word on those that are missing."""
    there = {result.kind: list(_part(result)) for result in results}
    return [line for kind in KINDS for line in (*there.get(kind, _missing(kind)), "")][:-1]


def shown(result: Result) -> list[str]:
    """The table alone."""
    heads = ("", ">measured", ">simulated", ">error", ">bar", "", ">measured repetitions apart by")
    return table(heads, map(_row, result.rows))


def _missing(kind: str) -> list[str]:
    return [
        f"### Against the {kind} engine",
        "",
        f"Not measured yet on a machine that was quiet enough: `python -m bench.simulator_check {kind}`.",
    ]


def _part(result: Result) -> Iterator[str]:
    found = ", ".join(f"`{name}` {value:,.4g}" for name, value in result.parameters.items())
    yield f"### Against the {result.kind} engine"
    yield ""
    yield f"`{result.command}`: {result.what}. {result.where}."
    yield ""
    yield f"- Fitted on {result.fitted_on}: {found}."
    yield f"- Tried on {result.tried_on}; medians of {result.repetitions} repetitions. {result.steadiness}".rstrip()
    yield ""
    yield from shown(result)


def _row(row: Row) -> tuple[str, ...]:
    kept = "kept" if row.kept else "**missed**"
    times = (f"{seconds * 1e3:,.4g} ms" for seconds in (row.measured, row.simulated))
    return row.what, *times, f"{row.error:+.1%}", f"{row.bar:.0%}", kept, f"{row.spread:.1%}"
