"""What a simulation comes to: one value, which is the JSON that ``--json`` writes and all that reports show."""

import math
from collections import Counter
from collections.abc import Iterable, Sequence

import msgspec

from twinfer.devices.value import Quality, worst
from twinfer.simulator.distribution import PERCENTS, Gaps, percentile
from twinfer.simulator.hardware import Hardware
from twinfer.simulator.recorder import Journey, Recorder, WorkerRecord
from twinfer.simulator.scenario import Scenario

TIMELINE_BINS = 120
PER_DECADE = 20
"""Bars of a histogram for each power of ten."""


class Slo(msgspec.Struct, frozen=True):
    """What is good enough, in seconds; ``None`` leaves a bound out."""

    ttft_s: float | None = None
    tpot_s: float | None = None

    def holds(self, journey: Journey) -> bool:
        """Whether a request was served within it."""
        if journey.outcome != "ok" or journey.ttft_s is None:
            return False
        in_ttft = self.ttft_s is None or journey.ttft_s <= self.ttft_s
        return in_ttft and (self.tpot_s is None or (journey.tpot_s or 0.0) <= self.tpot_s)


class Percentiles(msgspec.Struct, frozen=True):
    """Of a distribution, in its own unit."""

    number: int
    mean: float
    p50: float
    p90: float
    p99: float


class PoolSummary(msgspec.Struct, frozen=True):
    """What a pool is made of."""

    name: str
    role: str
    workers: int
    hardware: str
    link: str
    kv_tokens: int
    """Positions whose KV one worker holds."""
    quality: str
    """Of the worst number in it."""
    price_per_hour: float | None
    """Of one worker, in US dollars."""
    power_w: float | None
    """Of one worker."""


class WorkerSummary(msgspec.Struct, frozen=True):
    """What a worker did."""

    name: str
    utilisation: float
    """Share of the time in steps."""
    kv_held_mean: float
    """Share of its KV blocks that requests and handoffs held, over time."""
    kv_held_peak: float
    steps: int
    prefill_tokens: int
    cached_tokens: int
    decode_tokens: int
    preemptions: int
    bytes_in: float
    bytes_out: float
    busy: tuple[float, ...]
    """Share in steps, in each bin of the timeline."""
    held: tuple[float, ...]
    """Share of its KV blocks held, in each bin."""


class Handoffs(msgspec.Struct, frozen=True):
    """KV passed from worker to worker."""

    number: int
    """Committed, fetches of prefixes included."""
    num_bytes: float
    exposed_s: Percentiles
    """From the last chunk's seal to the commit: what the client waits for."""
    fetches: dict[str, int]
    """Of prefixes from decode workers, by how they ended."""
    replans: dict[str, int]
    """Requests routed once more, by reason."""


class Costs(msgspec.Struct, frozen=True):
    """Of all workers for all the time, busy or not; ``None`` where a device's price or power is not known."""

    usd_per_million_output_tokens: float | None
    usd_per_million_tokens: float | None
    kwh_per_million_output_tokens: float | None
    kwh_per_million_tokens: float | None
    unpriced: tuple[str, ...]
    """Pools whose price is not known."""
    quality: str
    """Of the worst number used anywhere."""


class Timeline(msgspec.Struct, frozen=True):
    """What happened when: one entry per bin, requests by their arrival."""

    bin_s: float
    arrivals: tuple[int, ...]
    ttft_p50_s: tuple[float, ...]
    ttft_p90_s: tuple[float, ...]
    tpot_p50_s: tuple[float, ...]
    tpot_p90_s: tuple[float, ...]


class Histogram(msgspec.Struct, frozen=True):
    """Counts from each lower bound, in seconds, to the next: ``10 ** (1 / 20)`` times as much."""

    ttft: tuple[tuple[float, int], ...]
    tpot: tuple[tuple[float, int], ...]
    itl: tuple[tuple[float, int], ...]


class Summary(msgspec.Struct, frozen=True):
    """One simulation."""

    trace: str
    requests: int
    seed: int
    arrivals_s: float
    """Until the last request came."""
    duration_s: float
    """Until the last token came."""
    outcomes: dict[str, int]
    disaggregated: int
    recovered: int
    ttft_s: Percentiles
    tpot_s: Percentiles
    itl_s: Percentiles
    """Gaps between tokens, each known to half a percent."""
    requests_per_s: float
    input_tokens_per_s: float
    output_tokens_per_s: float
    slo: Slo
    slo_attained: float
    """Share of all requests."""
    goodput_per_s: float
    """Requests within the SLO per second."""
    handoffs: Handoffs
    costs: Costs
    pools: tuple[PoolSummary, ...]
    workers: tuple[WorkerSummary, ...]
    timeline: Timeline
    histogram: Histogram


def summarise(trace: str, scenario: Scenario, recorder: Recorder, slo: Slo) -> Summary:
    """What came of it."""
    journeys = recorder.journeys
    served = [one for one in journeys if one.outcome == "ok"]
    duration_s = max((one.last_token for one in journeys if one.last_token is not None), default=0.0)
    within = sum(map(slo.holds, journeys))
    ttft, tpot = _known(one.ttft_s for one in served), _known(one.tpot_s for one in served)
    return Summary(
        trace=trace,
        requests=len(journeys),
        seed=scenario.seed,
        arrivals_s=journeys[-1].arrived,
        duration_s=duration_s,
        outcomes=dict(Counter(one.outcome for one in journeys)),
        disaggregated=sum(one.disaggregated for one in journeys),
        recovered=sum(one.recoveries > 0 for one in served),
        ttft_s=_percentiles(ttft),
        tpot_s=_percentiles(tpot),
        itl_s=_gap_percentiles(recorder.gaps),
        requests_per_s=_rate(len(served), duration_s),
        input_tokens_per_s=_rate(sum(one.prompt_tokens for one in served), duration_s),
        output_tokens_per_s=_rate(sum(one.num_tokens for one in served), duration_s),
        slo=slo,
        slo_attained=within / len(journeys),
        goodput_per_s=_rate(within, duration_s),
        handoffs=Handoffs(
            number=len(recorder.handoffs),
            num_bytes=sum(num_bytes for _, num_bytes in recorder.handoffs),
            exposed_s=_percentiles([seconds for seconds, _ in recorder.handoffs]),
            fetches=recorder.fetches,
            replans=recorder.replans,
        ),
        costs=_costs(scenario, served, duration_s),
        pools=tuple(_pool(hardware) for hardware in scenario.hardware.values()),
        workers=tuple(_worker(record, duration_s) for record in recorder.workers.values()),
        timeline=_timeline(served, duration_s),
        histogram=Histogram(_bars(ttft), _bars(tpot), tuple(recorder.gaps.histogram(PER_DECADE))),
    )


def _known(values: Iterable[float | None]) -> list[float]:
    return [value for value in values if value is not None]


def _percentiles(values: Sequence[float]) -> Percentiles:
    ordered = sorted(values)
    return Percentiles(
        len(ordered), _rate(math.fsum(ordered), len(ordered)), *(percentile(ordered, percent) for percent in PERCENTS)
    )


def _gap_percentiles(gaps: Gaps) -> Percentiles:
    return Percentiles(gaps.number, gaps.mean, *(gaps.percentile(percent) for percent in PERCENTS))


def _rate(amount: float, seconds: float) -> float:
    return amount / seconds if seconds else 0.0


def _bars(values: Sequence[float]) -> tuple[tuple[float, int], ...]:
    gaps = Gaps()
    for value in values:
        gaps.add(value)
    return tuple(gaps.histogram(PER_DECADE))


def _pool(hardware: Hardware) -> PoolSummary:
    pool, capabilities = hardware.pool, hardware.capabilities
    return PoolSummary(
        name=pool.name,
        role=pool.role.value,
        workers=pool.workers,
        hardware=hardware.title,
        link=hardware.link.name,
        kv_tokens=capabilities.num_blocks * capabilities.layout.block_tokens,
        quality=hardware.quality.value,
        price_per_hour=hardware.price_per_hour,
        power_w=hardware.power_w,
    )


def _worker(record: WorkerRecord, duration_s: float) -> WorkerSummary:
    busy, held = record.busy.means_over(duration_s, TIMELINE_BINS), record.held.means_over(duration_s, TIMELINE_BINS)
    return WorkerSummary(
        name=record.name,
        utilisation=_rate(record.busy.total, duration_s),
        kv_held_mean=_rate(record.held.total, duration_s * record.num_blocks),
        kv_held_peak=record.peak_held / record.num_blocks,
        steps=record.steps,
        prefill_tokens=record.prefill_tokens,
        cached_tokens=record.cached_tokens,
        decode_tokens=record.decode_tokens,
        preemptions=record.preemptions,
        bytes_in=record.bytes_in,
        bytes_out=record.bytes_out,
        busy=tuple(round(share, 4) for share in busy),
        held=tuple(round(blocks / record.num_blocks, 4) for blocks in held),
    )


def _timeline(served: Sequence[Journey], duration_s: float) -> Timeline:
    bin_s = max(duration_s, 1e-9) / TIMELINE_BINS
    bins: list[list[Journey]] = [[] for _ in range(TIMELINE_BINS)]
    for journey in served:
        bins[min(TIMELINE_BINS - 1, int(journey.arrived / bin_s))].append(journey)
    ttft = [sorted(_known(one.ttft_s for one in each)) for each in bins]
    tpot = [sorted(_known(one.tpot_s for one in each)) for each in bins]
    return Timeline(
        bin_s,
        tuple(map(len, bins)),
        *(tuple(percentile(each, percent) for each in values) for values in (ttft, tpot) for percent in (50, 90)),
    )


def _costs(scenario: Scenario, served: Sequence[Journey], duration_s: float) -> Costs:
    pools = list(scenario.hardware.values())
    output = sum(one.num_tokens for one in served)
    every = output + sum(one.prompt_tokens for one in served)
    hours = duration_s / 3600
    usd = _sum([None if one.price_per_hour is None else one.price_per_hour * one.pool.workers for one in pools], hours)
    kwh = _sum([None if one.power_w is None else one.power_w * one.pool.workers / 1e3 for one in pools], hours)
    return Costs(
        _per_million(usd, output),
        _per_million(usd, every),
        _per_million(kwh, output),
        _per_million(kwh, every),
        tuple(one.pool.name for one in pools if one.price_per_hour is None),
        worst([Quality(one.quality) for one in pools]).value,
    )


def _sum(rates: Sequence[float | None], hours: float) -> float | None:
    known = _known(rates)
    return sum(known) * hours if len(known) == len(rates) else None


def _per_million(amount: float | None, tokens: int) -> float | None:
    return None if amount is None or not tokens else amount * 1e6 / tokens
