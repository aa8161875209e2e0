"""Steps taken as one are as good as the same steps one by one: the same tokens at the same times, and the same pool."""

from collections import deque
from dataclasses import dataclass, field

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fakes import EMULATION, KEY, MODEL, POOL, a_request
from twinfer.core.block_hash import BlockHasher
from twinfer.core.clock import ManualClock
from twinfer.core.layout import KVLayout
from twinfer.core.request import GenerationRequest
from twinfer.core.step import StepPlan, StepResult
from twinfer.core.tokens import Timings
from twinfer.engine.assemble import emulated_capabilities
from twinfer.engine.base import StepOutcome
from twinfer.engine.decode_run import decode_run
from twinfer.engine.emulated import EmulatedRunner
from twinfer.engine.loop import EngineLoop
from twinfer.engine.scheduler import Limits
from twinfer.engine.sequence import Purpose, TokenSequence
from twinfer.kv.block_pool import BlockPool

VOCAB = 6
STEP_S = 1.0
PREFILL_S = 0.25
Arrival = tuple[float, GenerationRequest]


def times_of(plan: StepPlan, ahead: int) -> float:
    """A device that takes longer the more it attends to."""
    return STEP_S + sum(PREFILL_S * (len(part.token_ids) - 1) + 2**-10 * (part.end + ahead) for part in plan.slices)


@dataclass
class Played:
    """What came of a play.

    Attributes:
        tokens: of each request, with their reasons to end.
        timings: of each request that was answered.
        pools: blocks held and not held, after so many steps.
        num_plans: how often it was decided what to do.
    """

    tokens: dict[str, list[tuple[int, str | None]]] = field(default_factory=dict)
    timings: dict[str, Timings] = field(default_factory=dict)
    failed: list[str] = field(default_factory=list)
    pools: dict[int, tuple[int, int]] = field(default_factory=dict)
    num_plans: int = 0
    ended_at: float = 0.0


def play(arrivals: list[Arrival], num_blocks: int, layout: KVLayout, max_run: int, within_blocks: bool) -> Played:
    """An engine under a clock that jumps from the end of a step to that of the next."""
    loop = EngineLoop(
        BlockPool(num_blocks),
        BlockHasher(KEY, emulated_capabilities(MODEL, POOL).fingerprint, "p", layout.block_tokens),
        Limits(16, 4, 64, num_blocks * layout.block_tokens, max_run=max_run, run_within_blocks=within_blocks),
        VOCAB,
    )
    memory = memoryview(bytearray(num_blocks * layout.block_bytes))
    runner = EmulatedRunner(memory, layout, VOCAB, EMULATION, ManualClock())
    played, left, now = Played(), deque(arrivals), 0.0
    while True:
        while left and left[0][0] <= now:
            loop.submit(left.popleft()[1], Purpose.ANSWER, now)
        plan = loop.begin(now)
        if plan is None:
            if not left:
                played.ended_at = now
                return played
            now = left[0][0]
            continue
        result = runner.execute(plan) if plan.slices else StepResult(())
        now, result = pass_time(plan, result, now, left[0][0] if left else float("inf"))
        record(played, loop, loop.finish(plan, result, now))
        played.num_plans += 1


def pass_time(plan: StepPlan, result: StepResult, now: float, next_arrival: float) -> tuple[float, StepResult]:
    """When the steps have ended that could begin; what came during one keeps the others from beginning."""
    if not plan.slices:
        return now, result
    first = now = now + times_of(plan, 0)
    later = 0
    while later < len(result.later) and now < min(next_arrival, plan.until):
        later += 1
        now += times_of(plan, later)
    return now, StepResult(result.draws, result.failed, result.later[:later], now - first)


def record(played: Played, loop: EngineLoop, outcome: StepOutcome) -> None:
    """Note what an outcome tells, and the pool after it."""
    for token in outcome.tokens:
        own = played.tokens.setdefault(token.request_id, [])
        assert len(own) == token.index
        own.append((token.token_id, token.finish))
    played.timings |= dict(outcome.finished)
    played.failed += [failure.request_id for failure in outcome.failed]
    counts = loop.pool.counts()
    played.pools[loop.load().counters.steps] = (counts.live, counts.free + counts.cached)


@st.composite
def arrival_lists(draw: st.DrawFn) -> list[Arrival]:
    """Requests; some end by a token, some by their length, some by their deadline.

    They come at any time and share nothing, or together and share prefixes: a run that is cut by who comes may have
    evicted cached blocks some steps early.
    """
    together = draw(st.booleans())
    arrivals = []
    for index in range(draw(st.integers(1, 7))):
        prompt = draw(st.lists(st.integers(0, VOCAB - 1), min_size=1, max_size=14))
        request = a_request(
            prompt, draw(st.integers(1, 14)), str(index), deadline_s=draw(st.sampled_from([6.5, 900.0]))
        )
        stopping = msgspec.structs.replace(
            request.stopping,
            stop_token_ids=draw(st.sampled_from([(), (1,)])),
            min_tokens=draw(st.integers(0, 3)),
        )
        at = 0.0 if together else draw(st.integers(0, 20 * 64)) / 64  # sums of such times are exact
        arrivals.append((at, msgspec.structs.replace(request, stopping=stopping)))
    return sorted(arrivals, key=lambda arrival: arrival[0])


@settings(max_examples=150, deadline=None)
@given(
    arrivals=arrival_lists(),
    num_blocks=st.integers(8, 24),
    max_run=st.integers(2, 9),
    within_blocks=st.booleans(),
    virtual=st.booleans(),
)
def test_a_run_of_steps_is_as_good_as_the_steps(
    arrivals: list[Arrival], num_blocks: int, max_run: int, within_blocks: bool, virtual: bool
) -> None:
    """Tokens, times, deadlines missed and the pool are the same, and it is decided less often."""
    layout = KVLayout(1, 1, 1, 4, "fp32", 100) if virtual else emulated_capabilities(MODEL, POOL).layout
    single = play(arrivals, num_blocks, layout, 1, within_blocks)
    runs = play(arrivals, num_blocks, layout, max_run, within_blocks)
    assert single.tokens == runs.tokens
    assert sorted(single.failed) == sorted(runs.failed)
    assert single.timings == runs.timings
    assert single.ended_at == runs.ended_at
    assert runs.pools == {steps: single.pools[steps] for steps in runs.pools}
    assert runs.num_plans <= single.num_plans


def test_a_long_answer_is_decided_once_a_run() -> None:
    """The saving itself."""
    layout = emulated_capabilities(MODEL, POOL).layout
    arrivals = [(0.0, a_request([1] * 5, 41))]
    assert 1 + 10 == play(arrivals, 24, layout, 4, within_blocks=False).num_plans
    assert 1 + 11 == play(arrivals, 24, layout, 40, within_blocks=True).num_plans


def a_sequence(**changes: object) -> TokenSequence:
    """One that decodes: its prompt is computed, and one token is drawn."""
    sequence = TokenSequence(a_request([1] * 5, 10), Purpose.ANSWER, 0.0, output=[1], num_computed=5)
    for name, value in changes.items():
        setattr(sequence, name, value)
    return sequence


def test_who_ends_or_does_not_decode_bounds_the_run() -> None:
    """The shortest way to a last token, and a single step for what is no plain decoding."""
    assert 8 == decode_run([a_sequence()], 8, 100)
    assert 9 == decode_run([a_sequence()], 20, 100)
    assert 4 == decode_run([a_sequence()], 20, 10)
    assert 3 == decode_run([a_sequence(), a_sequence(output=[1] * 7, num_computed=11)], 20, 100)
    assert 2 == decode_run([a_sequence(), a_sequence(output=[1, 2], num_computed=6)], 20, 100, block_tokens=4)
    assert 1 == decode_run([a_sequence(num_computed=3)], 20, 100)
    assert 1 == decode_run([a_sequence(purpose=Purpose.EXPORT)], 20, 100)
