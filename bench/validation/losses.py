"""Cases in which disaggregation is known to lose, recomputed: each has to come out as a loss, and three as gains.

Of every case one figure is compared, with the phases together and apart. Where the model that was measured is not among
the shapes, a similar one stands in.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from bench.closed_form import Load, Replica, rate_within, waiting_seconds
from twinfer.devices.catalogue import Catalogue
from twinfer.devices.model_config import load_shape
from twinfer.devices.placement import Placement
from twinfer.devices.shape import Precision
from twinfer.devices.transfer import transfer_seconds, wire_bytes


@dataclass(frozen=True, slots=True)
class Case:
    """One condition.

    Attributes:
        published: what others measured.
        figure: what is compared, with its unit.
        together: of the phases on the same devices.
        apart: of as many devices, dealt out to the phases.
        more_is_better: of the figure.
        loses: whether it has to.
    """

    condition: str
    published: str
    figure: str
    together: float
    apart: float
    more_is_better: bool
    loses: bool = True

    @property
    def holds(self) -> bool:
        """Whether it comes out as published."""
        worse = self.apart < self.together if self.more_is_better else self.apart > self.together
        return worse == self.loses


class _Models:
    """Replicas by name."""

    def __init__(self, catalogue: Catalogue) -> None:
        self.catalogue = catalogue

    def replica(self, device: str, shape: str, degree: int, precision: Precision = "bf16") -> Replica:
        profile, _ = self.catalogue.device(device)
        return Replica(profile, load_shape(shape), Placement(degree, degree, precision))


def cases(catalogue: Catalogue) -> list[Case]:
    """All of them."""
    models = _Models(catalogue)
    parts = (_two_a10, _trainium_box, _limits, _throughput, _transfers, _thin_link, _memory, _gains)
    return [case for part in parts for case in part(models)]


def _two_a10(models: _Models) -> Iterator[Case]:
    """Qwen2.5-7B, 2048 and 512 tokens, 4 requests per second on two A10."""
    one, load, rate = models.replica("a10", "qwen2.5-7b", 1), Load(2048, 512), 4.0
    prompt, step = one.prompt_seconds(load), one.token_seconds(load, 16)
    condition, evidence = "equal hardware, low rate, short prompts: two A10", "Mooncake's documentation"
    yield Case(
        condition,
        f"mean first token 310 ms together, 1,112 apart ({evidence})",
        "share of the time that computing prompts takes of their GPUs, %",
        100 * rate / 2 * prompt,
        100 * rate * prompt,
        more_is_better=False,
    )
    yield Case(
        "the same, the gap between tokens",
        f"99th percentile 295 ms together, 20 apart: apart wins ({evidence})",
        "longest gap, ms",
        1e3 * (step + prompt),
        1e3 * step,
        more_is_better=False,
        loses=False,
    )


def _trainium_box(models: _Models) -> Iterator[Case]:
    """Sixteen Trainium2, prompts of 8192 and answers of 256; Qwen3-30B-A3B stands in for GLM-5.3-Flash."""
    half, load = models.replica("trn2", "qwen3-30b-a3b", 8), Load(8192, 256)
    running = min(64, half.places(load))
    prompt, tokens = half.prompt_busy_seconds(load), load.answer * half.token_busy_seconds(load, running)
    condition, evidence = "one box, the first token matters: 16 Trainium2", "Kiln"
    together = 2 * load.answer / (prompt + tokens)
    yield Case(
        condition,
        f"peak 632 tokens/s together, 294 apart ({evidence})",
        "peak, tokens/s",
        together,
        load.answer / max(prompt, tokens),
        more_is_better=True,
    )
    step = half.token_seconds(load, running)
    yield Case(
        "the same, the first token",
        f"within 5 s for 12 to 14 requests at a time together, for 4 apart ({evidence})",
        "mean first token at 80 % of what the half for prompts can take, s; together prompts come first",
        waiting_seconds(0.4, prompt) + step / 2 + prompt,
        waiting_seconds(0.8, prompt) + prompt,
        more_is_better=False,
    )


def _limits(models: _Models) -> Iterator[Case]:
    """Requests per second of two replicas of Llama-3.1-70B over four H100 each, within limits of either kind."""
    one, load = models.replica("h100", "llama-3.1-70b", 4, "fp8"), Load(4096, 256)
    prompt = one.prompt_seconds(load)
    tight, loose = 1.3 * prompt, 10 * prompt
    running = one.running(load, 0.1)
    tokens = load.answer * one.token_busy_seconds(load, running)
    yield Case(
        "a tight limit on the first token, a loose one per token (1.3 prompts, 100 ms)",
        "together is best (TaiChi)",
        "requests per second within the limits",
        2 * min(rate_within(tight, prompt), 1 / (prompt + tokens)),
        min(rate_within(tight, prompt), running / (load.answer * one.token_seconds(load, running))),
        more_is_better=True,
    )
    strict = 3 * one.token_seconds(load)
    few = one.running(load, strict)
    yield Case(
        "a loose limit on the first token, a tight one on every gap (10 prompts, 3 steps)",
        "apart is best (TaiChi)",
        "requests per second within the limits; together with prompts in chunks",
        2 * _chunked_rate(one, load, strict, loose),
        min(rate_within(loose, prompt), few / (load.answer * one.token_seconds(load, few))),
        more_is_better=True,
        loses=False,
    )


def _chunked_rate(one: Replica, load: Load, gap_s: float, first_token_s: float) -> float:
    """Requests per second of a replica whose steps hold as large a chunk of a prompt as a limit on gaps allows."""
    chunk = load.prompt
    while chunk and one.chunk_seconds(load, chunk) > gap_s:
        chunk //= 2
    return rate_within(first_token_s, load.prompt / chunk * gap_s) if chunk else 0.0


def _throughput(models: _Models) -> Iterator[Case]:
    """Eight replicas of Llama-3.1-70B over two H100 each, dealt out in the best way, and in a wrong one."""
    one, load = models.replica("h100", "llama-3.1-70b", 2, "fp8"), Load(4096, 512)
    running = min(64, one.places(load))
    prompt, tokens = one.prompt_busy_seconds(load), load.answer * one.token_busy_seconds(load, running)
    splits = {first: min(first / prompt, (8 - first) / tokens) for first in range(1, 8)}
    together = 8 / (prompt + tokens)
    yield Case(
        "throughput is the only goal, one type of device",
        "does not improve it (vLLM's documentation)",
        "requests per second of 16 H100, best split",
        together,
        max(splits.values()),
        more_is_better=True,
    )
    yield Case(
        "a frozen, wrong split: seven of eight replicas for prompts",
        "idle pool (Beyond the Buzz)",
        "requests per second of 16 H100",
        together,
        splits[7],
        more_is_better=True,
    )


def _transfers(models: _Models) -> Iterator[Case]:
    """Prompts of which little has to be computed: the hand-off costs more than it saves."""
    link = models.catalogue.link("efa-p5en")
    short, cached = Load(200, 200), Load(8192, 256, cached=7782)
    for condition, evidence, shape, load in (
        ("short inputs, a small dense model", "200/200 is too little (llm-d's guide)", "llama-3.1-8b", short),
        ("a prefix hit of 95 %", "llm-d and Dynamo decide by the uncached suffix", "llama-3.1-70b", cached),
    ):
        one = models.replica("h200", shape, 4, "fp8")
        local = one.prompt_seconds(load) - one.token_seconds(load)
        moved = transfer_seconds(link, wire_bytes(one.shape, load.prompt, 4))
        yield Case(
            condition,
            evidence,
            "first token of one request, ms",
            1e3 * one.prompt_seconds(load),
            1e3 * (local + moved + 2 * link.latency_s.value + one.token_seconds(load)),
            more_is_better=False,
        )


def _thin_link(models: _Models) -> Iterator[Case]:
    """A host of eight H100 computing prompts of Llama-3.1-70B at 70 % of what it can."""
    host, load = models.replica("h100", "llama-3.1-70b", 8, "fp8"), Load(8192, 256)
    prompt = host.prompt_busy_seconds(load)
    rate, size = 0.7 / prompt, wire_bytes(host.shape, load.prompt, 8)
    waiting = waiting_seconds(0.35, prompt) + prompt
    for name, per_s in (("25 Gb/s", 25e9 / 8), ("100 Gb/s", 100e9 / 8)):
        moved = size / per_s
        yield Case(
            f"a thin link: {name} for a host of eight",
            "below some 100 Gb/s first tokens get late and queues form (Mooncake)",
            "first token with the hand-off, s",
            waiting,
            waiting_seconds(0.7, prompt) + prompt + moved + waiting_seconds(rate * moved, moved),
            more_is_better=False,
        )
    direct = models.catalogue.link("efa-p5")
    yield Case(
        "KV staged in the host's memory",
        "p5: 64 GB/s between CPUs, 389 between GPUs (Mooncake)",
        "hand-off of 32k tokens of Llama-3.1-70B, ms (between GPUs, staged)",
        1e3 * transfer_seconds(direct, wire_bytes(host.shape, 32768, 8)),
        1e3 * wire_bytes(host.shape, 32768, 8) / 64e9,
        more_is_better=False,
    )


def _memory(models: _Models) -> Iterator[Case]:
    """Llama-3.1-405B in 8 bits on two hosts of eight H100: half of them hold no KV that is decoded from."""
    host, load = models.replica("h100", "llama-3.1-405b", 8, "fp8"), Load(8192, 1024)
    yield Case(
        "weights twice: 405B on two hosts of eight H100",
        "aggregation on half the GPUs beats it (Nexus)",
        "requests whose KV fits",
        2.0 * host.places(load),
        1.0 * host.places(load),
        more_is_better=True,
    )


def _gains(models: _Models) -> Iterator[Case]:
    """The pair of the announcement, so that the model is seen to say yes as well."""
    chips = models.replica("trn3", "gpt-oss-120b", 8, "mxfp4")
    wafers = Replica(models.catalogue.device("cs3")[0], chips.shape, Placement(4, precision="mxfp4"))
    load = Load(8192, 512)
    moved = transfer_seconds(models.catalogue.link("cs3-inlet"), wire_bytes(chips.shape, load.prompt), lanes=4)
    yield Case(
        "8k prompts of gpt-oss-120b, Trainium3 and CS-3 instead of Trainium3 alone",
        "claimed by the vendors, measured by nobody else",
        "whole answer of 512 tokens, s",
        chips.prompt_seconds(load) + load.answer * chips.token_seconds(load),
        chips.prompt_seconds(load) + moved + load.answer * wafers.token_seconds(load),
        more_is_better=False,
        loses=False,
    )
