"""KV that the pool had to let go of comes back from the host tier, by an engine that cannot be fooled about its KV."""

import msgspec
import pytest

from tests.fakes import EMULATION, POOL, SmallEngine, a_request, expected_output
from twinfer.core.block_events import BlockEvents
from twinfer.core.clock import ManualClock
from twinfer.core.ids import RequestId
from twinfer.core.load import HostCounts
from twinfer.core.tokens import Token
from twinfer.engine.base import StepOutcome

SIZE = POOL.block_tokens
NUM_BLOCKS = 16
PROMPT = list(range(1, 38))
"""Ten blocks, nine of them full: two such prompts do not fit the pool."""


def an_engine(num_host_blocks: int = 64, max_step_tokens: int = POOL.max_step_tokens) -> SmallEngine:
    """With a host tier of so many blocks."""
    pool = msgspec.structs.replace(POOL, max_step_tokens=max_step_tokens)
    return SmallEngine(NUM_BLOCKS, pool, num_host_blocks=num_host_blocks)


def ask(engine: SmallEngine, prompt: list[int], num_tokens: int = 3, tenant: str = "t") -> int:
    """Ask, and hear what is right; how many of the prompt's tokens were not computed."""
    before = engine.engine.load().counters.cached_tokens
    engine.engine.submit(a_request(prompt, num_tokens, f"r{prompt[0]} {tenant}", tenant))
    output = engine.run()
    assert [expected_output(prompt, num_tokens, EMULATION, tenant)] == list(output.values())
    return engine.engine.load().counters.cached_tokens - before


def push_out(engine: SmallEngine, tenant: str = "t", first: int = 100) -> None:
    """Two other prompts, which fill the pool."""
    for number in (first, first + 100):
        ask(engine, list(range(number, number + len(PROMPT))), tenant=tenant)


def step_until(engine: SmallEngine, num_back: int) -> None:
    """Step while blocks come back, so many at least."""
    for _ in range(100):
        if engine.engine.load().counters.host_tokens >= num_back * SIZE:
            return
        assert engine.engine.step() == StepOutcome()
    raise AssertionError("they never came")


def assert_idle(engine: SmallEngine) -> None:
    """Nothing is held in either tier."""
    report = engine.engine.load()
    assert (report.blocks.live, report.blocks.promised, report.host.held, report.host.filling) == (0, 0, 0, 0)


@pytest.mark.parametrize("max_step_tokens", [SIZE, 2 * SIZE, 512])
def test_what_was_pushed_out_comes_back(max_step_tokens: int) -> None:
    """Without a tier it is computed again; with one it is not, however much is copied at once, and the answer is the
    same; the accounts say so."""
    without, engine = an_engine(0), an_engine(64, max_step_tokens)
    for each in (without, engine):
        ask(each, PROMPT)
        push_out(each)
    assert ask(without, PROMPT) == 0
    before = engine.engine.load().counters
    assert ask(engine, PROMPT) == 9 * SIZE
    after = engine.engine.load().counters
    assert after.host_tokens - before.host_tokens == 9 * SIZE
    assert after.prefill_tokens - before.prefill_tokens == len(PROMPT) - 9 * SIZE
    assert (after.host_bad_blocks, after.host_evicted_blocks) == (0, 0)
    assert_idle(engine)


def test_without_pressure_nothing_is_copied() -> None:
    """As long as half of the pool can go without being lost."""
    engine = an_engine()
    ask(engine, PROMPT[:20])
    assert HostCounts(total=64, free=64) == engine.engine.load().host


def test_another_tenant_misses() -> None:
    """The same tokens, the same tier: only who stored them finds them, and a salt is as good as a tenant."""
    engine = an_engine()
    ask(engine, PROMPT, tenant="a")
    push_out(engine, "a")
    assert ask(engine, PROMPT, tenant="b") == 0
    salted = msgspec.structs.replace(a_request(PROMPT, 1, "salted", "a"), cache_salt="x")
    before = engine.engine.load().counters.cached_tokens
    engine.engine.submit(salted)
    engine.run()
    assert engine.engine.load().counters.cached_tokens == before
    assert ask(engine, PROMPT, tenant="a") == 9 * SIZE


def test_a_greedy_tenant_does_not_push_another_out() -> None:
    """However much it asks for, the other one's prompt is still there, which takes less than half of the tier."""
    engine = an_engine(num_host_blocks=20)
    ask(engine, PROMPT, tenant="a")
    for number in range(1, 9):
        push_out(engine, "b", 100 * number)
    counts = engine.engine.load()
    assert (counts.host.free, counts.counters.host_evicted_blocks > 50) == (0, True)
    assert ask(engine, PROMPT, tenant="a") == 9 * SIZE


def test_wrong_bytes_are_computed_again() -> None:
    """A digest that is not what it was: nothing of that block, or after it, is attended to; it is never found again."""
    engine = an_engine()
    ask(engine, PROMPT)
    push_out(engine)
    lent = engine.engine.exports.lend(a_request(PROMPT, 1, "look"), 9)
    assert lent is not None
    engine.engine.exports.release(RequestId("look"))
    slots = [block for block in lent if block >= NUM_BLOCKS]
    size = engine.engine.capabilities.layout.block_bytes
    engine.memory[slots[4] * size] ^= 1
    before = engine.engine.load().counters.host_tokens
    assert ask(engine, PROMPT) == (9 - len(slots) + 4) * SIZE
    counters = engine.engine.load().counters
    assert (counters.host_bad_blocks, counters.host_tokens - before) == (1, 4 * SIZE)
    assert_idle(engine)
    push_out(engine)
    assert ask(engine, PROMPT) == 9 * SIZE


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_cancelled_while_it_comes_back(steps: int) -> None:
    """Everything is let go, in both tiers, and comes back for the next one."""
    engine = an_engine(max_step_tokens=2 * SIZE)
    ask(engine, PROMPT)
    push_out(engine)
    engine.engine.submit(a_request(PROMPT, 3, "leaves"))
    step_until(engine, 2 * (steps - 1))
    engine.engine.cancel(RequestId("leaves"))
    engine.run()
    assert_idle(engine)
    assert ask(engine, PROMPT) == 9 * SIZE


def test_overdue_while_it_comes_back() -> None:
    """The request's time bounds the hold as it bounds everything else."""
    engine = an_engine(max_step_tokens=2 * SIZE)
    ask(engine, PROMPT)
    push_out(engine)
    engine.engine.submit(a_request(PROMPT, 3, "late", deadline_s=5.0))
    step_until(engine, 2)
    assert isinstance(engine.clock, ManualClock)
    engine.clock.advance(5.0)
    outcome = engine.engine.step()
    assert outcome is not None
    assert [failure.request_id for failure in outcome.failed] == ["late"]
    engine.run()
    assert_idle(engine)


def test_others_go_on_meanwhile() -> None:
    """A sequence that decodes gets a token in each step while another's blocks come back, a few between two steps."""
    engine = an_engine(max_step_tokens=SIZE)
    ask(engine, PROMPT)
    push_out(engine)
    engine.engine.submit(a_request([900], 20, "decodes"))
    engine.engine.step()
    engine.engine.submit(a_request(PROMPT, 3, "returns"))
    drawn: list[Token] = []
    while engine.engine.load().counters.host_tokens < 9 * SIZE:
        outcome = engine.engine.step()
        assert outcome is not None
        drawn += outcome.tokens
    assert len([token for token in drawn if token.request_id == "decodes"]) >= 9
    while (outcome := engine.engine.step()) is not None:
        drawn += outcome.tokens
    assert expected_output(PROMPT, 3) == [token.token_id for token in drawn if token.request_id == "returns"]


def test_blocks_of_either_tier_are_lent() -> None:
    """A prefix whose beginning is in the pool and whose rest is on the host is lent whole, and stays while it is."""
    engine = an_engine()
    ask(engine, PROMPT)
    push_out(engine)
    engine.engine.submit(a_request(PROMPT[: 4 * SIZE + 1], 1, "part"))
    engine.run()
    exports = engine.engine.exports
    assert exports.count_on_host(a_request(PROMPT, 1), 4 * SIZE) == 5 * SIZE
    blocks = exports.lend(a_request(PROMPT, 1, "fetch"), 9)
    assert blocks is not None
    assert [block >= NUM_BLOCKS for block in blocks] == [False] * 4 + [True] * 5
    report = engine.engine.load()
    assert (report.blocks.live, report.host.held) == (4, 5)
    before = exports.generations(blocks)
    push_out(engine, first=500)
    assert before == exports.generations(blocks)
    exports.release(RequestId("fetch"))
    assert_idle(engine)


def test_those_afar_hear_that_it_is_still_here() -> None:
    """A block that left the pool for the host tier is still told of; one that was lost is told to be gone."""
    kept, lost = an_engine(64), an_engine(0)
    for engine in (kept, lost):
        ask(engine, PROMPT)
        before = set(engine.engine.block_events(-1).blocks())
        push_out(engine)
        events = engine.engine.block_events(-1)
        assert events == BlockEvents(events.first, events.hashes, everything=True)
        assert (before <= set(events.blocks())) == (engine is kept)


def test_two_at_once() -> None:
    """Both get what the tier has of them, in one step or two, and neither disturbs the other."""
    engine = an_engine(max_step_tokens=2 * SIZE)
    short = PROMPT[: 5 * SIZE + 1]
    other = list(range(500, 500 + len(short)))
    for prompt in (short, other):
        ask(engine, prompt)
    push_out(engine)
    for name, prompt in (("one", short), ("two", other)):
        engine.engine.submit(a_request(prompt, 2, name))
    output = engine.run()
    assert {"one": expected_output(short, 2), "two": expected_output(other, 2)} == output
    assert engine.engine.load().counters.host_tokens == 10 * SIZE
    assert_idle(engine)


def test_who_waits_for_room_leaves_everything_as_it_is() -> None:
    """The blocks of its prefix stay spare, so that there is nothing to do until somebody lets go of some."""
    engine = an_engine()
    prefix = PROMPT[: 4 * SIZE]
    ask(engine, [*prefix, 500])
    held = list(range(600, 600 + 8 * SIZE))
    engine.engine.exports.submit(a_request(held, 1, "parked"))
    engine.run()
    before = engine.engine.load()
    assert (before.blocks.live, before.blocks.free, before.host.cached) == (8, 4, 4)
    long = [*prefix, *range(700, 700 + 9 * SIZE)]
    engine.engine.submit(a_request(long, 2, "waits"))
    assert engine.engine.step() is None
    after = engine.engine.load()
    assert (after.waiting, after.blocks, after.host) == (1, before.blocks, before.host)
    engine.engine.exports.release(RequestId("parked"))
    assert engine.run() == {"waits": expected_output(long, 2)}
    assert_idle(engine)
