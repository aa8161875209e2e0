"""What a request would see on each choice of workers, and what others would: formulas, all in seconds.

    ahead    = prompts on the worker that are not computed yet
    chunks   = steps that ahead and the uncached part of the prompt take
    wait     = pace * (chunks * decode step of those there + prefill(ahead))
    service  = pace * prefill(uncached part)
    ttft     = wait + service + delay until the decode worker has room
    step     = pace * decode step with one more row and its context
    tpot     = max(step / (1 - share of prompts in its time), step + prefill(ahead) / answer) + exposed / answer
    exposed  = what of the transfer is not hidden behind the prompt's computation, and half a step
    burden   = service * rows / answer / tpot goal              streams that a prompt holds up
             + service * share / (1 - share) / ttft goal        prompts that will come behind it
             + rows * (what a step grows by) / tpot goal        streams that share steps with the answer
    cost     = ttft / ttft goal + tpot / tpot goal + burden

A prompt on a worker that decodes is dear by the first line of the burden: that is what disaggregation avoids. On a
prefill worker the line is zero, and the transfer is what it costs instead.
"""

import math
from dataclasses import dataclass

from twinfer.core.cost import Estimate, LinkCost, StepCost, prompt_work
from twinfer.core.ids import WorkerId
from twinfer.core.snapshot import WorkerState

FULL = 0.9
"""A share of prompts in a worker's time beyond which no more is believed."""
CHUNK_BYTES = 2.0**21
UNMEASURED = LinkCost(0.0005, 1 / 25e9)
"""A link of which nothing is known is taken for a fast one, so that it is tried."""


@dataclass(frozen=True, slots=True)
class Ask:
    """What a request needs.

    Attributes:
        prompt_tokens: of the whole prompt.
        answer_tokens: expected.
        ttft_s, tpot_s: what it should see.
    """

    prompt_tokens: int
    answer_tokens: float
    ttft_s: float
    tpot_s: float


@dataclass(frozen=True, slots=True)
class PrefillSide:
    """One worker as the place where the prompt is computed."""

    state: WorkerState
    wait_s: float
    service_s: float
    burden: float

    def price(self, ask: Ask) -> float:
        """In shares of the objectives."""
        return (self.wait_s + self.service_s) / ask.ttft_s + self.burden


@dataclass(frozen=True, slots=True)
class DecodeSide:
    """One worker as the place where the answer is generated."""

    state: WorkerState
    hit: int
    delay_s: float
    step_s: float
    tpot_s: float
    burden: float

    def price(self, ask: Ask) -> float:
        """In shares of the objectives."""
        return self.delay_s / ask.ttft_s + self.tpot_s / ask.tpot_s + self.burden


def prefill_side(state: WorkerState, cost: StepCost, hit: int, ask: Ask) -> PrefillSide:
    """The prompt computed there, but for its first ``hit`` tokens."""
    load = state.load
    work = prompt_work(min(hit, ask.prompt_tokens - 1), ask.prompt_tokens)
    ahead = load.backlog + state.unreported
    chunks: float = -(-(ahead.tokens + work.tokens) // cost.chunk_tokens)
    if load.decode_rows or ahead.tokens:
        chunks += 0.5  # of the step under way
    step = cost.decode_s(load.decode_rows, load.decode_context)
    wait = cost.pace * (step * chunks + cost.prefill_s(ahead))
    service = cost.pace * cost.prefill_s(work)
    share = min(state.prefill_share, FULL)
    held_up = load.decode_rows * service / (ask.answer_tokens * ask.tpot_s)
    return PrefillSide(state, wait, service, held_up + share / (1.0 - share) * service / ask.ttft_s)


def decode_side(state: WorkerState, cost: StepCost, hit: int, ask: Ask) -> DecodeSide:
    """The answer generated there."""
    load = state.load
    rows = max(load.decode_rows, state.in_flight)
    context = load.decode_context + (rows - load.decode_rows) * ask.prompt_tokens
    own = ask.prompt_tokens + ask.answer_tokens / 2
    step = cost.pace * cost.decode_s(rows + 1, context + own)
    growth = cost.pace * (cost.row_s + cost.context_s * own)
    share = min(state.prefill_share, FULL)
    ahead = cost.pace * cost.prefill_s(load.backlog + state.unreported)
    tpot = max(step / (1.0 - share), step + ahead / ask.answer_tokens)
    return DecodeSide(state, hit, _delay(state, step, hit, ask), step, tpot, rows * growth / ask.tpot_s)


def aggregated(prefill: PrefillSide, decode: DecodeSide, ask: Ask) -> Estimate:
    """Both phases on one worker."""
    worker = decode.state.identity.worker
    ttft = prefill.wait_s + prefill.service_s + decode.delay_s
    return _estimate((worker, None), ttft, decode.tpot_s, prefill.burden + decode.burden, ask)


def disaggregated(prefill: PrefillSide, decode: DecodeSide, ask: Ask) -> Estimate:
    """Each phase on its own worker."""
    source, sink = prefill.state.identity, decode.state.identity
    link = decode.state.links.get(source.worker, UNMEASURED)
    num_bytes = max(0, ask.prompt_tokens - decode.hit) * source.capabilities.layout.token_bytes
    flowing = link.pace * link.byte_s * num_bytes
    last = link.pace * link.byte_s * min(num_bytes, CHUNK_BYTES)
    exposed = link.pace * link.fixed_s + max(flowing - prefill.service_s, last) + decode.step_s / 2
    ttft = prefill.wait_s + prefill.service_s + decode.delay_s + link.fixed_s
    tpot = decode.tpot_s + exposed / ask.answer_tokens
    return _estimate((sink.worker, source.worker), ttft, tpot, prefill.burden + decode.burden, ask)


def fetch_pays_from(state: WorkerState, cost: StepCost, source: WorkerId, token_bytes: float) -> int:
    """From how many cached tokens on a worker is quicker to fetch them than to compute them; 0 when it never is."""
    link = state.links.get(source, UNMEASURED)
    gain = cost.pace * cost.token_s - link.pace * link.byte_s * token_bytes
    return math.ceil(link.pace * link.fixed_s / gain) + 1 if gain > 0 else 0


def _estimate(workers: tuple[WorkerId, WorkerId | None], ttft: float, tpot: float, burden: float, ask: Ask) -> Estimate:
    cost = ttft / ask.ttft_s + tpot / ask.tpot_s + burden
    return Estimate(*workers, ttft, tpot, burden, cost, ttft <= ask.ttft_s and tpot <= ask.tpot_s)


def _delay(state: WorkerState, step_s: float, hit: int, ask: Ask) -> float:
    """Until there is room for the KV: as long as it takes until enough answers there ended."""
    blocks, size = state.load.blocks, state.identity.capabilities.layout.block_tokens
    needed = (ask.prompt_tokens - hit + ask.answer_tokens) / size + state.unreported.tokens / size
    missing = needed - (blocks.free + blocks.cached - blocks.promised)
    if missing <= 0:
        return 0.0
    return ask.answer_tokens * step_s * min(1.0, missing / max(blocks.live, 1))
