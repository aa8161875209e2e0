"""docs/claims.md and its figures, from what is computed now; ``page.md`` beside this file is what stays the same."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from string import Template

from bench.claims import claims
from bench.claims.claims import BATCH, MODEL, PAIR_CHIPS, PAIR_WAFERS, PUBLISHED_SPEEDS, SPEED_WAFERS
from bench.claims.leaning import Estimate, Fleet
from bench.markdown import table
from bench.svg import Band, Labels, Mark, Range, band, ranges
from twinfer.devices.catalogue import Catalogue
from twinfer.devices.profile import values, worst_quality
from twinfer.devices.value import worst

TEMPLATE = Path(__file__).with_name("page.md")
SHOWN = {
    "cs3": ("layer_s", "hop_s", "token_s", "compute_efficiency", "bf16_flops"),
    "cs3-inlet": ("line_bytes_per_s", "latency_s"),
    "trn3": ("compute_efficiency at 1", "moe_factor", "layer_overhead_s", "collective_s", "collective_bytes_per_s"),
    "b200": ("compute_efficiency at 1", "moe_factor", "layer_overhead_s", "collective_s", "launch_s"),
}
"""The numbers that decide most, by device or link."""


def page(catalogue: Catalogue) -> str:
    """The whole text."""
    fleet = Fleet(catalogue)
    wholes, gains = claims.whole_answers(fleet), claims.decode_gains(fleet)
    published = [gain.times for gain in gains if gain.published]
    names = {entry: worst_quality(catalogue.entry(entry)) for entry in SHOWN}
    return Template(TEMPLATE.read_text(encoding="utf-8")).substitute(
        layer_claimed=f"{1e6 * claims.layer_seconds(fleet, PUBLISHED_SPEEDS[0][0]):.1f}",
        layer_measured=f"{1e6 * claims.layer_seconds(fleet, PUBLISHED_SPEEDS[-1][0]):.1f}",
        published_gains=f"{min(t.low for t in published):.1f} to {max(t.high for t in published):.0f} times",
        prompt_for_five=f"{claims.prompt_for(fleet, 5.0, 200):,}",
        order_summary=_order_summary(wholes),
        tags=", ".join(f"`{name}` {quality}" for name, quality in names.items() if quality == worst(names.values())),
        layers=fleet.wafers(MODEL, SPEED_WAFERS, "mxfp4").shape.num_layers,
        speed_verdict=_speed_verdict(fleet),
        speed_wafers=SPEED_WAFERS,
        pair_wafers=PAIR_WAFERS,
        pair_chips=PAIR_CHIPS,
        batch=BATCH,
        speeds="\n".join(_speeds(fleet)),
        gains="\n".join(_gains(gains)),
        capacities="\n".join(_capacities(fleet)),
        wholes="\n".join(_wholes(wholes)),
        values="\n".join(_values(catalogue)),
    )


def figures(catalogue: Catalogue) -> Mapping[str, str]:
    """One for each claim, by file name."""
    fleet = Fleet(catalogue)
    return {
        "claims-speed.svg": _speed_figure(fleet),
        "claims-decode.svg": _decode_figure(fleet),
        "claims-capacity.svg": _capacity_figure(fleet),
        "claims-order.svg": _order_figure(fleet),
    }


def verdict(times: Estimate, claim: float) -> str:
    """Whether a claim is reached by the catalogue's values, at their better end only, or not at all."""
    if times.low >= claim:
        return "yes, at either end"
    if times.value >= claim:
        return "yes"
    return "at the better end" if times.high >= claim else "no"


def _order_summary(wholes: list[claims.Whole]) -> str:
    found = {name: [whole.times[name].value for whole in wholes] for name in wholes[0].times}
    parts = (f"{min(times):.1f} to {max(times):.0f} times faster than {name}" for name, times in found.items())
    return f"whole answers come {', '.join(parts)}, by workload"


def _speed_verdict(fleet: Fleet) -> str:
    speed = claims.speeds(fleet)[0].tokens_per_s
    return (
        f"The catalogue's value gives {speed.value:,.0f}, from {speed.low:,.0f} at the slow end of its range to "
        f"{speed.high:,.0f}."
    )


def _speeds(fleet: Fleet) -> list[str]:
    heads = (
        "context",
        ">tokens/s, low",
        ">value",
        ">high",
        ">with the hand-off, over 500 tokens",
        ">that fit at a time",
    )
    return table(
        heads,
        (
            (f"{one.context:,}", *_ends(one.tokens_per_s), f"{one.with_handoff.value:,.0f}", f"{one.places}")
            for one in claims.speeds(fleet)
        ),
    )


def _ends(estimate: Estimate) -> tuple[str, str, str]:
    return f"{estimate.low:,.0f}", f"{estimate.value:,.0f}", f"{estimate.high:,.0f}"


def _times(estimate: Estimate) -> str:
    return f"{estimate.value:.2g} ({estimate.low:.2g} to {_big(estimate.high)})"


def _big(value: float) -> str:
    return f"{value:.2g}" if value < 100 else f"{value:,.0f}"


def _gains(gains: list[claims.Gain]) -> list[str]:
    return table(
        ("model", "against", "speeds", ">times as fast", "15 times"),
        (
            (
                gain.model,
                gain.baseline,
                "published" if gain.published else "computed",
                _times(gain.times),
                verdict(gain.times, 15.0),
            )
            for gain in gains
        ),
    )


def _capacities(fleet: Fleet) -> list[str]:
    heads = (
        "workload",
        "tokens in, cached, out",
        "source",
        ">times as many",
        ">8 in a step",
        "5 times",
        ">Trainium3 per wafer",
    )

    def rows() -> Iterator[tuple[str, ...]]:
        for one in claims.capacities(fleet):
            load = one.workload.load
            lengths = f"{load.prompt:,}, {load.cached:,}, {load.answer:,}"
            both = (_times(one.times), _times(one.times_batched))
            chips = f"{_big(one.chips.value)} ({_big(one.chips.low)} to {_big(one.chips.high)})"
            yield one.workload.name, lengths, one.workload.source, *both, verdict(one.times, 5.0), chips

    return table(heads, rows())


def _wholes(wholes: list[claims.Whole]) -> list[str]:
    names = list(wholes[0].times)
    return table(
        (
            "workload",
            ">the pair, s",
            *(f">{name}: times as long" for name in names),
            *(f"10x {name}?" for name in names),
        ),
        (
            (
                whole.workload.name,
                f"{whole.pair_s:.2g}",
                *(_times(whole.times[name]) for name in names),
                *(verdict(whole.times[name], 10.0) for name in names),
            )
            for whole in wholes
        ),
    )


def _values(catalogue: Catalogue) -> list[str]:
    return table(
        ("of", "number", ">value", ">low", ">high", "quality", "source"),
        (
            (f"`{name}`", f"`{one.name}`", *_edges(one.value), one.value.quality, one.value.source)
            for name, wanted in SHOWN.items()
            for one in values(catalogue.entry(name))
            if one.name in wanted
        ),
    )


def _edges(value: object) -> tuple[str, ...]:
    return tuple(f"{getattr(value, name):.3g}" for name in ("value", "low", "high"))


def _speed_figure(fleet: Fleet) -> str:
    points = [
        (float(one.context), one.tokens_per_s.low, one.tokens_per_s.value, one.tokens_per_s.high)
        for one in claims.speeds(fleet)
    ]
    names = [(float(context), f"{context // 1024}k") for context in claims.CONTEXTS]
    marks = [Mark(speed, name) for speed, name in PUBLISHED_SPEEDS]
    labels = Labels(
        "gpt-oss-120b on CS-3: tokens per second of one stream",
        f"{SPEED_WAFERS} wafers; the band is the catalogue's range, mostly of the time per layer; dashed: published",
        "tokens/s",
    )
    return band(labels, Band(points, marks, "tokens of context", names))


def _decode_figure(fleet: Fleet) -> str:
    rows = [
        Range(
            f"{gain.model.removesuffix('-a22b')}, {gain.baseline}",
            *_three(gain.times),
            _note(gain.times),
            gain.published,
        )
        for gain in claims.decode_gains(fleet)
    ]
    labels = Labels(
        "How many times as fast a CS-3 decodes one stream",
        "blue: against published speeds, 1,706 to 3,000 for the CS-3; grey: both computed, bars are all bounds at once",
        "times as many tokens per second",
    )
    return ranges(labels, rows, Mark(15.0, "15x claimed"))


def _capacity_figure(fleet: Fleet) -> str:
    rows = [
        Range(f"{one.workload.name}{suffix}", *_three(times), _note(times), strong)
        for one in claims.capacities(fleet)
        for suffix, times, strong in (("", one.times, True), (f", {BATCH} in a step", one.times_batched, False))
    ]
    labels = Labels(
        "How many times as many requests wafers take without their prompts",
        "gpt-oss-120b; blue: one token in each wafer's step, grey: eight; bars are all bounds at once",
        "times as many requests per second",
    )
    return ranges(labels, rows, Mark(5.0, "5x claimed"))


def _order_figure(fleet: Fleet) -> str:
    rows = [
        Range(f"{whole.workload.name}, {name}", *_three(times), _note(times), name == "8 B200")
        for whole in claims.whole_answers(fleet)
        for name, times in whole.times.items()
        if name != "8 H100"
    ]
    labels = Labels(
        "How many times as long others take to the end of an answer",
        "gpt-oss-120b, one request; the pair: 8 Trainium3 and 4 CS-3; blue: against 8 B200, grey: against 8 Trainium3",
        "times as long as the pair; left of 1 the pair is slower",
    )
    return ranges(labels, rows, Mark(10.0, "10x claimed"))


def _three(estimate: Estimate) -> tuple[float, float, float]:
    return estimate.low, estimate.value, estimate.high


def _note(estimate: Estimate) -> str:
    return f"{estimate.value:.2g}x"
