"""The four claims as numbers: each with its lowest, middle and highest credible value."""

from dataclasses import dataclass

from bench.claims.leaning import OPPOSITE, Estimate, Fleet, Lean, estimate
from bench.claims.workloads import WORKLOADS, Workload
from bench.closed_form import Load, Replica
from twinfer.devices.shape import Precision
from twinfer.devices.transfer import transfer_seconds, wire_bytes

MODEL = "gpt-oss-120b"
SPEED_WAFERS, PAIR_WAFERS, PAIR_CHIPS = 2, 4, 8
CONTEXTS = tuple(2**power for power in range(10, 18))
PUBLISHED_SPEEDS = ((3000.0, "3,000 claimed (vendor)"), (2059.0, "2,059 (an analyst)"), (1706.0, "1,706 (independent)"))


@dataclass(frozen=True, slots=True)
class Speed:
    """Tokens per second of one stream at a context.

    Attributes:
        places: requests of that context whose KV fits.
        with_handoff: the same over an answer of 500 tokens, the hand-off of the prompt's KV counted in.
    """

    context: int
    tokens_per_s: Estimate
    places: int
    with_handoff: Estimate


def speeds(fleet: Fleet) -> list[Speed]:
    """Of gpt-oss-120b on the fewest wafers, over the length of the context."""
    return [_speed(fleet, context) for context in CONTEXTS]


def _speed(fleet: Fleet, context: int) -> Speed:
    load, link = Load(context, 500), fleet.catalogue.link("cs3-inlet")

    def seconds(lean: Lean) -> float:
        return fleet.wafers(MODEL, SPEED_WAFERS, "mxfp4", lean).token_seconds(load)

    def whole(lean: Lean) -> float:
        wafers = fleet.wafers(MODEL, SPEED_WAFERS, "mxfp4")
        moved = transfer_seconds(link, wire_bytes(wafers.shape, context), lanes=SPEED_WAFERS)
        return load.answer / (moved + load.answer * seconds(lean))

    places = fleet.wafers(MODEL, SPEED_WAFERS, "mxfp4").places(load)
    return Speed(context, estimate(lambda lean: 1.0 / seconds(lean)), places, estimate(whole))


def prompt_for(fleet: Fleet, times: float, answer: int) -> int:
    """The shortest prompt, nothing cached, with which wafers gain so much capacity by the catalogue's values."""
    low, high = 1, 2**20
    while low < high:
        middle = (low + high) // 2
        if _gain(fleet, Load(middle, answer), "value", 1) >= times:
            high = middle
        else:
            low = middle + 1
    return low


def layer_seconds(fleet: Fleet, tokens_per_s: float) -> float:
    """Time per layer that a speed leaves, crossings counted in."""
    return 1.0 / tokens_per_s / fleet.wafers(MODEL, SPEED_WAFERS, "mxfp4").shape.num_layers


@dataclass(frozen=True, slots=True)
class Gain:
    """How many times faster, over what.

    Attributes:
        published: whether both speeds are; otherwise they are computed from the catalogue.
    """

    model: str
    baseline: str
    times: Estimate
    published: bool


PUBLISHED_BASELINES = (
    ("fastest GPUs (683)", 683.0),
    ("GB200, apart (535)", 535.0),
    ("8 B200 (437)", 437.0),
    ("8 H200 (276)", 276.0),
    ("8 H100 (275)", 275.0),
)
"""Tokens per second per user of gpt-oss-120b: Artificial Analysis, May 2026; the others InferenceX at low batch."""
MEASURED_TOKENS = {"h100": 275.0, "b200": 437.0}
MEASURED_AT = Load(1024, 1024)
"""Of hosts of eight, among these; the lengths they were measured with."""
WAFERS_NEEDED: dict[str, tuple[int, Precision]] = {
    "gpt-oss-120b": (2, "mxfp4"),
    "llama-3.1-70b": (4, "bf16"),
    "qwen3-235b-a22b": (13, "bf16"),
    "llama-3.1-405b": (22, "bf16"),
}
"""The fewest that hold the weights, 16 bits where nothing narrower is published."""
BASELINES = (("h100", "8 H100"), ("b200", "8 B200"), ("trn3", "8 Trainium3"))


def decode_gains(fleet: Fleet) -> list[Gain]:
    """Of a CS-3's single stream over that of other devices."""
    low, middle, high = (speed for speed, _ in sorted(PUBLISHED_SPEEDS))
    found = [
        Gain(MODEL, name, Estimate(low / speed, middle / speed, high / speed), True)
        for name, speed in PUBLISHED_BASELINES
    ]
    load = MEASURED_AT
    for model in WAFERS_NEEDED:
        for device, name in BASELINES:

            def times(lean: Lean, model: str = model, device: str = device) -> float:
                wafers = fleet.wafers(model, *WAFERS_NEEDED[model], lean)
                narrow: Precision = "mxfp4" if model == MODEL else "fp8"
                return fleet.chips(device, model, 8, narrow, OPPOSITE[lean]).token_seconds(load) / wafers.token_seconds(
                    load
                )

            found.append(Gain(model, name, estimate(times), False))
    return found


@dataclass(frozen=True, slots=True)
class Capacity:
    """How many times as many requests the same wafers take when prompts are computed elsewhere.

    Attributes:
        times: one token in each wafer's step.
        times_batched: eight of them.
        chips: Trainium3 that compute the prompts in the meantime, for each wafer.
        prompt_share: of a wafer's time, while it still did both.
    """

    workload: Workload
    times: Estimate
    times_batched: Estimate
    chips: Estimate
    prompt_share: float


BATCH = 8


def capacities(fleet: Fleet) -> list[Capacity]:
    """Of every workload: ``1 + prompts / tokens`` of the wafers' time."""
    return [_capacity(fleet, workload) for workload in WORKLOADS]


def _capacity(fleet: Fleet, workload: Workload) -> Capacity:
    load = workload.load

    def chips(lean: Lean) -> float:
        pool = fleet.chips("trn3", MODEL, PAIR_CHIPS, "mxfp4", lean)
        pace = load.answer * fleet.wafers(MODEL, PAIR_WAFERS, "mxfp4", OPPOSITE[lean]).token_busy_seconds(load, 1)
        return PAIR_CHIPS * pool.prompt_busy_seconds(load) / pace / PAIR_WAFERS

    return Capacity(
        workload,
        estimate(lambda lean: _gain(fleet, load, lean, 1)),
        estimate(lambda lean: _gain(fleet, load, lean, BATCH)),
        estimate(chips),
        1.0 - 1.0 / _gain(fleet, load, "value", 1),
    )


def _gain(fleet: Fleet, load: Load, lean: Lean, batch: int) -> float:
    """With prompts at one end of what is credible, and tokens at the other."""
    prompts = fleet.wafers(MODEL, PAIR_WAFERS, "mxfp4", lean).prompt_busy_seconds(load)
    tokens = fleet.wafers(MODEL, PAIR_WAFERS, "mxfp4", OPPOSITE[lean]).token_busy_seconds(load, batch)
    return 1.0 + prompts / (load.answer * tokens)


@dataclass(frozen=True, slots=True)
class Whole:
    """Time from the request to the end of the answer, for one that meets no other.

    Attributes:
        pair_s: of the pair, by the catalogue's values.
        times: how many times as long a baseline takes.
    """

    workload: Workload
    pair_s: float
    times: dict[str, Estimate]


def whole_answers(fleet: Fleet) -> list[Whole]:
    """Trainium3 and CS-3 against hosts of eight GPUs and against Trainium3 alone."""
    return [
        Whole(
            workload,
            _pair_seconds(fleet, workload.load, "value"),
            {name: _times(fleet, workload.load, device) for device, name in BASELINES},
        )
        for workload in WORKLOADS
    ]


def _times(fleet: Fleet, load: Load, device: str) -> Estimate:
    def times(lean: Lean) -> float:
        host = fleet.chips(device, MODEL, 8, "mxfp4", OPPOSITE[lean])
        return _alone_seconds(host, load, MEASURED_TOKENS.get(device)) / _pair_seconds(fleet, load, lean)

    return estimate(times)


def _alone_seconds(host: Replica, load: Load, tokens_per_s: float | None) -> float:
    """Of one host. A speed that was measured with short contexts falls with longer ones as the computed one does."""
    token = host.token_seconds(load)
    if tokens_per_s is not None:
        token /= tokens_per_s * host.token_seconds(MEASURED_AT)
    return host.prompt_seconds(load) + load.answer * token


def _pair_seconds(fleet: Fleet, load: Load, lean: Lean) -> float:
    """With KV moved after the prompt, over the slower of the chips' EFA and the wafers' inlets."""
    chips = fleet.chips("trn3", MODEL, PAIR_CHIPS, "mxfp4", lean)
    wafers = fleet.wafers(MODEL, PAIR_WAFERS, "mxfp4", lean)
    moved = wire_bytes(wafers.shape, load.prompt)
    nearer = transfer_seconds(fleet.catalogue.link("efa-trn3"), moved, lanes=PAIR_CHIPS)
    inlets = transfer_seconds(fleet.catalogue.link("cs3-inlet"), moved, lanes=PAIR_WAFERS)
    return chips.prompt_seconds(load) + max(nearer, inlets) + load.answer * wafers.token_seconds(load)
