"""docs/validation.md and its figure, from what is computed now; ``page.md`` beside this file is what stays the same."""

from collections.abc import Iterator, Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from string import Template

import numpy as np
from numpy.typing import NDArray

from bench.markdown import table
from bench.simulator_check import result
from bench.svg import Labels, histogram
from bench.validation import anchors
from bench.validation.fitting import Errors, fitted, left_out
from bench.validation.losses import cases
from bench.validation.parameters import OF_DEVICES, OF_SERVING, Parameters
from bench.validation.points import POINTS, Reading, read
from bench.validation.runs import Column, runs_of
from twinfer.devices.catalogue import Catalogue
from twinfer.devices.shape import ROUTING_EXPONENT

TEMPLATE = Path(__file__).with_name("page.md")
FIGURE = "validation-errors.svg"
EDGES = (-1.0, -0.75, -0.5, -0.375, -0.25, -0.125, 0.0, 0.125, 0.25, 0.375, 0.5, 0.75, 1.0, np.inf)
GROUP = "a model on a system"
TOKEN_BAR, FIRST_TOKEN_BAR, WAFER_BAR, TRANSFER_BAR = 0.15, 0.25, 0.25, 0.15


@dataclass(frozen=True, slots=True)
class Judgement:
    """The fit on all groups, and what fits on others are worth.

    Attributes:
        fits: one without each group.
        by: which runs are left out together, and the errors that follow.
        below: whether each run is below saturation.
    """

    reading: Reading
    parameters: Parameters
    fits: Sequence[Parameters]
    by: dict[str, Errors]
    below: NDArray[np.bool_]


def judge(catalogue: Catalogue) -> Judgement:
    """Fit and leave out: some seconds."""
    reading = read(POINTS, catalogue)
    runs = runs_of(reading.points, catalogue)
    groups = [point.group for point in reading.points]
    by_group, fits = left_out(runs, groups)
    wider = {
        "a model, on all systems": [point.shape.name for point in reading.points],
        "a system, with all models": [point.device.name for point in reading.points],
    }
    by = {GROUP: by_group} | {name: left_out(runs, which)[0] for name, which in wider.items()}
    return Judgement(reading, fitted(runs, groups), fits, by, runs.below_saturation > 0)


def page(judgement: Judgement, catalogue: Catalogue) -> str:
    """The whole text."""
    points, heads = judgement.reading.points, ("case", ">published", ">computed", "", ">error", "note")
    tables = {
        "summary": _summary(judgement, catalogue),
        "spread": _spread(judgement),
        "groups": _groups(judgement),
        "parameters": _parameters(judgement),
        "left_out": table((">rows", "why"), _reasons(judgement)),
        "trainium": table(heads, map(_row, anchors.trainium2(catalogue))),
        "wafers": table((*heads, ">from the others"), _wafers(catalogue)),
        "slower_wafers": table(heads, map(_row, anchors.wafers(catalogue, anchors.SLOWER_WAFER_SPEEDS))),
        "transfers": table(heads, map(_row, anchors.transfers(catalogue))),
        "losses": _losses(catalogue),
        "ourselves": result.section(result.read()),
    }
    return Template(TEMPLATE.read_text(encoding="utf-8")).substitute(
        {name: "\n".join(lines) for name, lines in tables.items()},
        runs=f"{len(points):,}",
        below=f"{int(judgement.below.sum()):,}",
        least=min(point.running for point in points),
        most=max(point.running for point in points),
        figure=FIGURE,
        number=len(fields(Parameters)),
        devices=len(OF_DEVICES),
        serving=len(OF_SERVING),
        routing=ROUTING_EXPONENT,
    )


def figure(judgement: Judgement) -> str:
    """How the errors of left-out groups are spread."""
    errors = judgement.by[GROUP]
    series = (
        ("Time per output token", _counts(errors.token)),
        ("Time to first token, below saturation", _counts(errors.first_token[judgement.below])),
    )
    labels = Labels(
        "Errors on measured runs whose model and system the fit has not seen",
        "runs by computed over measured, less one; dark within 25 %, the last bin has no end",
        "error",
    )
    return histogram(labels, EDGES, series)


def _counts(errors: Column) -> list[int]:
    return [int(count) for count in np.histogram(errors, EDGES)[0]]


def _summary(judgement: Judgement, catalogue: Catalogue) -> list[str]:
    errors, held = judgement.by[GROUP], cases(catalogue)
    largest = {
        name: max(abs(anchor.error) for anchor in found)
        for name, found in (
            ("trainium", anchors.trainium2(catalogue)),
            ("wafers", anchors.wafers(catalogue, anchors.WAFER_SPEEDS)),
            ("transfers", anchors.transfers(catalogue)),
        )
    }
    token, first = _size(errors.token, 50), _size(errors.first_token[judgement.below], 50)
    holding = sum(case.holds for case in held)
    return table(
        ("compared with", ">bar", ">reached", ""),
        (
            ("GPU runs of groups left out: time per token, median error", *_against(token, TOKEN_BAR)),
            ("the same: time to first token below saturation", *_against(first, FIRST_TOKEN_BAR)),
            ("Trainium2, one chip, prompts and tokens: largest error", "", f"{largest['trainium']:.0%}", ""),
            ("CS-3, six tuned speeds from layers alone: largest error", *_against(largest["wafers"], WAFER_BAR)),
            ("Mooncake's transfer tables: largest error", *_against(largest["transfers"], TRANSFER_BAR)),
            (
                "cases of disaggregation whose sign is known",
                "all",
                f"{holding} of {len(held)}",
                _kept(holding == len(held)),
            ),
        ),
    )


def _against(found: float, bar: float) -> tuple[str, str, str]:
    return f"{bar:.0%}", f"{found:.0%}", _kept(found <= bar)


def _kept(kept: bool) -> str:
    return "kept" if kept else "**missed**"


def _size(errors: Column, percentile: int) -> float:
    return float(np.percentile(np.abs(errors), percentile))


def _spread(judgement: Judgement) -> list[str]:
    def row(errors: Column) -> tuple[str, ...]:
        shares = (f"{float(np.mean(np.abs(errors) <= within)):.0%}" for within in (0.1, 0.25, 0.5))
        return f"{float(np.median(errors)):+.0%}", *(f"{_size(errors, at):.0%}" for at in (50, 75, 90)), *shares

    heads = ("left out together", "time", ">median", ">half within", ">75 % within", ">90 % within")
    return table(
        (*heads, ">within 10 %", ">within 25 %", ">within 50 %"),
        (
            (name, what, *row(held))
            for name, errors in judgement.by.items()
            for what, held in (("per token", errors.token), ("to first token", errors.first_token[judgement.below]))
        ),
    )


def _groups(judgement: Judgement) -> list[str]:
    points, errors = judgement.reading.points, judgement.by[GROUP]

    def rows() -> Iterator[tuple[str, ...]]:
        for group in sorted({point.group for point in points}):
            own = np.array([point.group == group for point in points])
            token, first = errors.token[own], errors.first_token[own & judgement.below]
            engines = ", ".join(sorted({point.engine for point in points if point.group == group}))
            yield *group, engines, f"{int(own.sum())}", *_three(token), *_three(first)

    heads = ("model", "system", "engines", ">runs", ">per token: median", ">half within", ">90 %")
    return table((*heads, ">first token: median", ">half within", ">90 %"), rows())


def _three(errors: Column) -> tuple[str, str, str]:
    return f"{float(np.median(errors)):+.0%}", f"{_size(errors, 50):.0%}", f"{_size(errors, 90):.0%}"


def _parameters(judgement: Judgement) -> list[str]:
    others = [astuple(fit) for fit in judgement.fits]
    columns = zip(fields(Parameters), astuple(judgement.parameters), *(_edges(others)), strict=True)
    return table(
        ("parameter", "of", ">value", ">lowest", ">highest"),
        (
            (
                f"`{field.name}`",
                "devices" if field.name in OF_DEVICES else "runs",
                *(f"{value:.2g}" for value in values),
            )
            for field, *values in columns
        ),
    )


def _edges(rows: Sequence[tuple[float, ...]]) -> tuple[list[float], list[float]]:
    return [min(column) for column in zip(*rows, strict=True)], [max(column) for column in zip(*rows, strict=True)]


def _reasons(judgement: Judgement) -> Iterator[tuple[str, str]]:
    for why, rows in sorted(judgement.reading.left_out.items(), key=lambda item: -item[1]):
        yield str(rows), why


def _wafers(catalogue: Catalogue) -> Iterator[tuple[str, ...]]:
    speeds = anchors.WAFER_SPEEDS
    for index, anchor in enumerate(anchors.wafers(catalogue, speeds)):
        yield *_row(anchor), f"{anchors.speed_from_the_others(speeds, index) / anchor.measured - 1:+.0%}"


def _row(anchor: anchors.Anchor) -> tuple[str, ...]:
    measured = f"{anchor.measured:,.4g}" if anchor.measured < 1e3 else f"{anchor.measured:,.0f}"
    return anchor.what, measured, _figure(anchor.computed), anchor.unit, f"{anchor.error:+.0%}", anchor.note


def _losses(catalogue: Catalogue) -> list[str]:
    def rows() -> Iterator[tuple[str, ...]]:
        for case in cases(catalogue):
            sign = ("loss" if case.loses else "gain") if case.holds else "**the opposite**"
            yield case.condition, case.published, case.figure, _figure(case.together), _figure(case.apart), sign

    return table(("condition", "published", "figure", ">together", ">apart", "comes out as"), rows())


def _figure(value: float) -> str:
    return "without end" if value == np.inf else f"{value:,.3g}" if value < 1e3 else f"{value:,.0f}"
