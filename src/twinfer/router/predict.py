"""What a request would see on each choice of workers, and what others would: formulas, all in seconds.

    ahead    = prompts on the worker that are not computed yet, worse tiers left out (``router/prompt_queue.py``)
    chunks   = steps that ahead and the uncached part of the prompt take
    added    = what prompts add to decode steps of those there, which may hide a part of them (``core/cost.py``)
    ttft     = pace * (chunks * decode step + added(ahead and uncached part)) + delay until the decode worker has room,
               which a prompt that stands in its queue finds later than one that is handed over
    service  = pace * prefill(uncached part)
    holds    = pace * (added(ahead and uncached part) - added(ahead)); the service where nobody decodes
    step     = pace * decode step with one more row and its context
    token    = step / (1 - share of prompts in the worker's time)
    exposed  = what of the transfer is not hidden behind the prompt's computation, at least what the prompt's last step
               computes; and half a step
    tpot     = token + (ahead + exposed) / mean answer

An answer of n tokens that is stalled for s seconds is late when s / (n - 1) is more than the slack, tpot goal - token,
for its first token is not waited for here; so the lengths of answers tell how many are. Near the goal nobody knows on
which side of it a token falls: the share that is late whatever happens is a ramp around it, and only the others can be
made late. All costs are numbers of requests that become late:

    own      = late by ttft, a ramp around the goal; and the share of answers late by (ahead + exposed)
    held up  = rows * (how many more of them are late by ``holds`` more of a stall, and a tenth of the share that it is
               of what a mean answer may take, and of the ttft goal: whoever reads waits as for a first token)
    crowded  = rows * (how many more of them are late with the step that one more row makes, and a tenth of the share
               that it grows by of what a token may take)
    behind   = holds / ttft goal * share / (1 - share), for the prompts that will come: a tenth, more when it is late
    cost     = own + held up + crowded + behind + a tenth of (ttft / ttft goal + tpot / tpot goal)

A prompt on a worker that decodes holds up its rows: that is what disaggregation avoids. On a prefill worker there are
none, and the transfer is what it costs instead.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

from twinfer.core.answers import AnswerLengths
from twinfer.core.cost import Estimate, LinkCost, StepCost, prompt_work
from twinfer.core.ids import WorkerId
from twinfer.core.service import Tier
from twinfer.core.snapshot import WorkerState

FULL = 0.9
"""A share of prompts in a worker's time beyond which no more is believed."""
EARLY = 0.1
"""What a share of an objective counts, in late requests, as long as it is kept."""
SURE, HOPELESS = 0.7, 1.2
"""A predicted time to the first token of that many objectives is kept, or is not, whatever the error."""
SURE_TOKEN, HOPELESS_TOKEN = 0.85, 1.15
"""Of a predicted time per token, which is better known."""
LEAST_SLACK = 0.075
"""Of an objective: what is left, about, where it is kept although that was not sure."""
UNMEASURED = LinkCost(0.0005, 1 / 25e9)
"""A link of which nothing is known is taken for a fast one, so that it is tried."""


@dataclass(frozen=True, slots=True)
class Ask:
    """What a request needs.

    Attributes:
        prompt_tokens: of the whole prompt.
        answers: how long they are.
        ttft_s, tpot_s: what it should see.
        tier: who is before it in queues, and who gives way to it.
    """

    prompt_tokens: int
    answers: AnswerLengths
    ttft_s: float
    tpot_s: float
    tier: Tier = Tier.DEFAULT


@dataclass(frozen=True, slots=True)
class PrefillSide:
    """One worker as the place where the prompt is computed: until when, how long, and how much in its last step."""

    state: WorkerState
    ttft_s: float
    service_s: float
    last_tokens: int
    burden: float

    def price(self, ask: Ask) -> float:
        """Its part of the cost, about."""
        ttft = self.ttft_s / ask.ttft_s
        return _late(ttft) + EARLY * ttft + self.burden


@dataclass(frozen=True, slots=True)
class DecodeSide:
    """One worker as the place where the answer is generated.

    Attributes:
        hit: prompt tokens whose KV is there.
        delay_s: until there is room for a prompt that is handed over.
        queue_s: until there is for one that is to be computed there.
        step_s: of one step that only decodes, with this answer.
        tpot_s: time per token, what stalls it there included.
        stall_s: for how long prompts that are there already hold up its second token.
        token_s: time per token without that.
        burden: other requests that it makes late.
    """

    state: WorkerState
    hit: int
    delay_s: float
    queue_s: float
    step_s: float
    tpot_s: float
    stall_s: float
    token_s: float
    burden: float

    def price(self, ask: Ask) -> float:
        """Its part of the cost, about."""
        early = EARLY * (self.delay_s / ask.ttft_s + self.tpot_s / ask.tpot_s)
        return _late(self.delay_s / ask.ttft_s) + _stalled_new(ask, self.stall_s, self.token_s) + self.burden + early


def prefill_side(state: WorkerState, cost: StepCost, hit: int, ask: Ask) -> PrefillSide:
    """The prompt computed there, but for its first ``hit`` tokens."""
    load = state.load
    work = prompt_work(min(hit, ask.prompt_tokens - 1), ask.prompt_tokens)
    ahead = state.ahead_of(ask.tier)
    chunks: float = -(-(ahead.tokens + work.tokens) // cost.chunk_tokens)
    if load.decode_rows or ahead.tokens:
        chunks += 0.5  # of the step under way
    step = cost.decode_s(load.decode_rows, load.decode_context)
    rows = max(load.decode_rows, state.answering)
    own, before = cost.prefill_s(work), cost.prefill_s(ahead)
    shown = cost.shown_s(ahead.tokens, before, step)
    added = max(shown, cost.shown_s(ahead.tokens + work.tokens, before + own, step))
    ttft = cost.pace * (step * chunks + added)
    service = cost.pace * own
    holds = cost.pace * (added - shown) if rows else service
    share = min(state.prefill_share, FULL)
    behind = holds / ask.ttft_s * share / (1.0 - share) * (EARLY + _late(ttft / ask.ttft_s))
    held_up = 0.0
    if rows and holds:
        stall = cost.pace * cost.added_s(load.backlog + state.unreported, step)
        token = cost.pace * step / (1.0 - share)
        held_up = rows * (_stalled(ask, stall + holds, token) - _stalled(ask, stall, token))
        held_up += EARLY * rows * holds * (1.0 / (ask.answers.mean * ask.tpot_s) + 1.0 / ask.ttft_s)
    last = min(work.tokens, cost.chunk_tokens)
    return PrefillSide(state, ttft, service, last, held_up + behind)


def decode_side(state: WorkerState, cost: StepCost, hit: int, ask: Ask) -> DecodeSide:
    """The answer generated there."""
    load = state.load
    rows = max(load.decode_rows, state.answering)
    context = load.decode_context + (rows - load.decode_rows) * state.in_flight_tokens / max(state.in_flight, 1)
    own = ask.prompt_tokens + ask.answers.mean / 2
    plain = cost.decode_s(rows + 1, context + own)
    step = cost.pace * plain
    growth = cost.pace * (cost.row_s + cost.context_s * own)
    share = min(state.prefill_share, FULL)
    stall = step + cost.pace * cost.added_s(state.ahead, plain)
    token = step / (1.0 - share)
    crowded = rows * (_stalled(ask, stall, token) - _stalled(ask, stall, token - growth))
    crowded += EARLY * rows * growth / ask.tpot_s
    tpot = token + (stall - step) / ask.answers.mean
    delay, queue = _delays(state, step, hit, ask)
    return DecodeSide(state, hit, delay, queue, step, tpot, stall, token, crowded)


def aggregated(prefill: PrefillSide, decode: DecodeSide, ask: Ask) -> Estimate:
    """Both phases on one worker."""
    ttft = prefill.ttft_s + decode.queue_s
    return _estimate(prefill, decode, (None, ttft, 0.0), ask)


def disaggregated(prefill: PrefillSide, decode: DecodeSide, ask: Ask) -> Estimate:
    """Each phase on its own worker."""
    source = prefill.state.identity
    link = decode.state.links.get(source.worker, UNMEASURED)
    num_tokens = max(0, ask.prompt_tokens - decode.hit)
    token_s = link.pace * link.byte_s * source.capabilities.layout.token_bytes
    last_s = token_s * min(num_tokens, prefill.last_tokens)
    exposed = link.pace * link.fixed_s + max(token_s * num_tokens - prefill.service_s, last_s) + decode.step_s / 2
    ttft = prefill.ttft_s + decode.delay_s + link.fixed_s
    return _estimate(prefill, decode, (source.worker, ttft, exposed), ask)


def fetch_pays_from(state: WorkerState, cost: StepCost, source: WorkerId, token_bytes: float) -> int:
    """From how many cached tokens on a worker is quicker to fetch them than to compute them; 0 when it never is."""
    link = state.links.get(source, UNMEASURED)
    gain = cost.pace * cost.token_s - link.pace * link.byte_s * token_bytes
    return math.ceil(link.pace * link.fixed_s / gain) + 1 if gain > 0 else 0


def _estimate(
    prefill: PrefillSide, decode: DecodeSide, way: tuple[WorkerId | None, float, float], ask: Ask
) -> Estimate:
    """``way``: the other worker, the time to the first token, and the stall before the second."""
    source, ttft, exposed = way
    tpot = decode.tpot_s + exposed / ask.answers.mean
    burden = prefill.burden + decode.burden
    own = _late(ttft / ask.ttft_s) + _stalled_new(ask, decode.stall_s + exposed, decode.token_s)
    cost = own + burden + EARLY * (ttft / ask.ttft_s + tpot / ask.tpot_s)
    holds = ttft <= ask.ttft_s and tpot <= ask.tpot_s
    return Estimate(decode.state.identity.worker, source, ttft, tpot, burden, cost, holds)


def _late(share: float) -> float:
    """How likely an objective is missed of which that share is predicted."""
    return _ramp(share, SURE, HOPELESS)


def _stalled(ask: Ask, stall_s: float, token_s: float) -> float:
    """Of answers under way, those that are late with a stall."""
    return _late_answers(ask.answers.weight_shorter, stall_s, token_s, ask.tpot_s)


def _stalled_new(ask: Ask, stall_s: float, token_s: float) -> float:
    """How likely a new answer is late with a stall."""
    return _late_answers(ask.answers.share_shorter, stall_s, token_s, ask.tpot_s)


def _late_answers(shorter: Callable[[float], float], stall_s: float, token_s: float, goal_s: float) -> float:
    share = token_s / goal_s
    late = _ramp(share, SURE_TOKEN, HOPELESS_TOKEN)
    if late == 1.0:
        return 1.0
    return late + (1.0 - late) * shorter(1.0 + stall_s / (goal_s * max(1.0 - share, LEAST_SLACK)))


def _ramp(share: float, sure: float, hopeless: float) -> float:
    if share <= sure:
        return 0.0
    return 1.0 if share >= hopeless else (share - sure) / (hopeless - sure)


def _delays(state: WorkerState, step_s: float, hit: int, ask: Ask) -> tuple[float, float]:
    """Until there is room for the KV, handed over and computed there: until enough answers there have ended.

    A prompt in the queue needs room for those before it, and leaves a block for each that runs; one that is handed over
    takes the last block. So while some are on their way they take what becomes free first, and the queue has no more
    than what the answers of now leave when they have ended.
    """
    load, blocks, size = state.load, state.load.blocks, state.identity.capabilities.layout.block_tokens
    answers_s = ask.answers.mean * step_s
    needed = (ask.prompt_tokens - hit + ask.answers.mean) / size + state.unreported.tokens / size
    missing = needed - (blocks.free + blocks.cached - blocks.promised)
    if ask.tier.is_urgent:
        missing -= load.yielding_blocks
    before = min(load.waiting_tokens, state.ahead_of(ask.tier).tokens) / size
    in_queue = missing + load.running + before
    if in_queue <= 0:
        return 0.0, 0.0
    delay_s = answers_s * min(1.0, max(0.0, missing) / max(blocks.live, 1))
    return delay_s, answers_s if blocks.promised else answers_s * min(1.0, in_queue / max(blocks.live, 1))
