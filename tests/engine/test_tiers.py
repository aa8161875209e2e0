"""Who is admitted first, who gives way, and who is not let in."""

import msgspec
import pytest

from tests.fakes import MODEL, POOL, SmallEngine, a_request, expected_output
from twinfer.core.block_hash import BlockHasher
from twinfer.core.errors import CapacityError
from twinfer.core.ids import RequestId
from twinfer.core.request import GenerationRequest
from twinfer.core.service import Tier
from twinfer.core.step import StepPlan, StepResult
from twinfer.core.turns import PASSES
from twinfer.engine.assemble import emulated_capabilities
from twinfer.engine.loop import EngineLoop
from twinfer.engine.preempt import MAX_YIELDS
from twinfer.engine.scheduler import Limits
from twinfer.engine.sequence import Purpose
from twinfer.kv.block_pool import BlockPool

CAPABILITIES = emulated_capabilities(MODEL, POOL)
TIERS = (Tier.FLEX, Tier.DEFAULT, Tier.PRIORITY, Tier.FLEX, Tier.RESERVED, Tier.DEFAULT)


def a_loop(**limits: int) -> EngineLoop:
    """An engine's pure half with room for one sequence."""
    bounds = {"max_step_tokens": 64, "max_running": 1, "max_waiting": 8, "max_context_tokens": 1000} | limits
    return EngineLoop(BlockPool(64), BlockHasher(b"key", CAPABILITIES.fingerprint, "", 16), Limits(**bounds), None)


def of_tier(tier: Tier, number: int) -> GenerationRequest:
    """A request that says its tier and number in its id."""
    return msgspec.structs.replace(a_request([1, 2, 3], 1), request_id=RequestId(f"{tier}-{number}"), tier=tier)


def test_tiers_come_in_order_and_within_one_by_arrival() -> None:
    """Reserved and priority first, flex last."""
    loop = a_loop()
    for number, tier in enumerate(TIERS):
        loop.submit(of_tier(tier, number), Purpose.ANSWER, 0.0)
    order = []
    while (plan := loop.begin(0.0)) is not None:
        order.append(plan.slices[0].request.request_id)
        loop.cancel(plan.slices[0].request.request_id)
        loop.finish(plan, _nothing(plan), 0.0)
    assert order == ["reserved-4", "priority-2", "default-1", "default-5", "flex-0", "flex-3"]


def test_flex_is_refused_first_and_reserved_has_places_of_its_own() -> None:
    """Flex when half of the queue is taken; others have all of it, and the reserved tier as much again."""
    loop = a_loop(max_waiting=4)
    loop.submit(of_tier(Tier.FLEX, 0), Purpose.ANSWER, 0.0)
    loop.submit(of_tier(Tier.FLEX, 1), Purpose.ANSWER, 0.0)
    with pytest.raises(CapacityError, match="no place for tier flex: 2 wait"):
        loop.submit(of_tier(Tier.FLEX, 2), Purpose.ANSWER, 0.0)
    loop.submit(of_tier(Tier.DEFAULT, 3), Purpose.ANSWER, 0.0)
    loop.submit(of_tier(Tier.PRIORITY, 4), Purpose.ANSWER, 0.0)
    with pytest.raises(CapacityError, match="no place for tier priority: 4 wait"):
        loop.submit(of_tier(Tier.PRIORITY, 5), Purpose.ANSWER, 0.0)
    for number in range(4):
        loop.submit(of_tier(Tier.RESERVED, number), Purpose.ANSWER, 0.0)
    with pytest.raises(CapacityError, match="no place for tier reserved: 8 wait"):
        loop.submit(of_tier(Tier.RESERVED, 4), Purpose.ANSWER, 0.0)


def a_prompt(tier: Tier, number: int, num_tokens: int, max_tokens: int = 4) -> GenerationRequest:
    """A request that shares nothing with another number's."""
    tokens = [1 + (number * 131 + position * 7) % 900 for position in range(num_tokens)]
    return msgspec.structs.replace(a_request(tokens, max_tokens, f"{tier}-{number}"), tier=tier)


def step(engine: SmallEngine, heard: dict[str, list[int]]) -> bool:
    """Take one step and note its tokens; false when there was nothing to do."""
    outcome = engine.engine.step()
    for token in () if outcome is None else outcome.tokens:
        heard.setdefault(token.request_id, []).append(token.token_id)
    return outcome is not None


def answers(*requests: GenerationRequest) -> dict[str, list[int]]:
    """What each must hear, whatever happens to it meanwhile."""
    return {one.request_id: expected_output(one.prompt, one.stopping.max_tokens) for one in requests}


def test_an_urgent_prompt_passes_those_under_way() -> None:
    """A flex prompt is cut up; what comes meanwhile and is urgent goes before the rest of it."""
    loop = a_loop(max_step_tokens=64, max_running=8)
    loop.submit(a_prompt(Tier.FLEX, 0, 256), Purpose.EXPORT, 0.0)
    first = loop.begin(0.0)
    assert first is not None
    loop.finish(first, _nothing(first), 0.0)
    loop.submit(a_prompt(Tier.PRIORITY, 1, 48), Purpose.EXPORT, 0.0)
    second = loop.begin(0.0)
    assert second is not None
    parts = [(part.request.request_id, len(part.token_ids)) for part in second.slices]
    assert [("priority-1", 48), ("flex-0", 16)] == parts


def test_a_prompt_under_way_is_not_passed_for_ever() -> None:
    """After so many steps without it, the oldest comes before all others."""
    loop = a_loop(max_step_tokens=64, max_running=64)
    loop.submit(a_prompt(Tier.FLEX, 0, 256), Purpose.EXPORT, 0.0)
    parts = []
    for number in range(PASSES + 3):
        plan = loop.begin(0.0)
        assert plan is not None
        parts.append([part.request.request_id for part in plan.slices])
        loop.finish(plan, _nothing(plan), 0.0)
        loop.submit(a_prompt(Tier.PRIORITY, 1 + number, 64), Purpose.EXPORT, 0.0)
    assert [0, PASSES + 1] == [step for step, names in enumerate(parts) if "flex-0" in names]


@pytest.mark.parametrize("tier", [Tier.PRIORITY, Tier.RESERVED])
def test_flex_makes_room_for_an_urgent_request_and_answers_the_same(tier: Tier) -> None:
    """Its blocks are given away, it is computed once more later, and nobody can tell from the tokens."""
    engine, heard = SmallEngine(num_blocks=24), dict[str, list[int]]()
    flex, urgent = a_prompt(Tier.FLEX, 0, 60, 24), a_prompt(tier, 1, 60)
    engine.engine.submit(flex)
    step(engine, heard)
    engine.engine.submit(urgent)
    step(engine, heard)
    assert [1, 1] == [len(heard[request.request_id]) for request in (flex, urgent)]
    assert 1 == engine.engine.load().counters.preemptions
    while step(engine, heard):
        pass
    assert answers(flex, urgent) == heard


def test_a_place_to_run_is_room_too() -> None:
    """Where as many run as may, one of them leaves its place to the urgent one."""
    pool = msgspec.structs.replace(POOL, max_running=1)
    engine, heard = SmallEngine(64, pool), dict[str, list[int]]()
    flex, urgent = a_prompt(Tier.FLEX, 0, 20, 12), a_prompt(Tier.PRIORITY, 1, 20)
    engine.engine.submit(flex)
    step(engine, heard)
    engine.engine.submit(urgent)
    while step(engine, heard):
        pass
    assert [urgent.request_id, flex.request_id] == sorted(heard, key=lambda name: len(heard[name]))
    assert (1, answers(flex, urgent)) == (engine.engine.load().counters.preemptions, heard)


def test_who_gave_way_is_not_told_that_its_own_work_was_cached() -> None:
    """It finds its own blocks again, but nothing of its prompt was there before it came."""
    engine = SmallEngine(64, msgspec.structs.replace(POOL, max_running=1)).engine
    flex, urgent = a_prompt(Tier.FLEX, 0, 40, 12), a_prompt(Tier.PRIORITY, 1, 40)
    engine.submit(flex)
    engine.step()
    engine.submit(urgent)
    cached: dict[str, int] = {}
    while (outcome := engine.step()) is not None:
        cached |= {name: timings.cached_tokens for name, timings in outcome.finished}
    assert (1, {flex.request_id: 0, urgent.request_id: 0}) == (engine.load().counters.preemptions, cached)
    assert engine.load().counters.cached_tokens > 0


@pytest.mark.parametrize(("first", "second"), [(Tier.FLEX, Tier.DEFAULT), (Tier.DEFAULT, Tier.PRIORITY)])
def test_only_flex_makes_room_and_only_for_urgent_ones(first: Tier, second: Tier) -> None:
    """Others wait until somebody has ended."""
    engine, heard = SmallEngine(num_blocks=24), dict[str, list[int]]()
    early, late = a_prompt(first, 0, 60, 12), a_prompt(second, 1, 60)
    engine.engine.submit(early)
    step(engine, heard)
    engine.engine.submit(late)
    while step(engine, heard):
        pass
    assert (0, answers(early, late)) == (engine.engine.load().counters.preemptions, heard)


def test_flex_gives_way_only_so_often() -> None:
    """Then it stays until it has ended, however many urgent ones come."""
    engine, heard = SmallEngine(num_blocks=24), dict[str, list[int]]()
    flex = a_prompt(Tier.FLEX, 0, 60, 24)
    urgent = [a_prompt(Tier.PRIORITY, number, 60, 1) for number in range(1, 30)]
    engine.engine.submit(flex)
    for request in urgent:
        step(engine, heard)
        engine.engine.submit(request)
        step(engine, heard)
    assert flex.request_id in heard
    while step(engine, heard):
        pass
    assert (MAX_YIELDS, answers(flex, *urgent)) == (engine.engine.load().counters.preemptions, heard)


def test_room_for_a_handoff_that_waits_is_not_given_to_worse_tiers() -> None:
    """Flex gives up its blocks for it, and what waits with a lower tier does not take them in between."""
    engine, heard = SmallEngine(num_blocks=24), dict[str, list[int]]()
    flex, default, urgent = (
        a_prompt(Tier.FLEX, 0, 60, 24),
        a_prompt(Tier.DEFAULT, 1, 60),
        a_prompt(Tier.PRIORITY, 2, 60),
    )
    engine.engine.submit(flex)
    step(engine, heard)
    engine.engine.submit(default)
    assert engine.engine.ingests.promise(urgent) is None
    engine.engine.ingests.claim(urgent)
    for _ in range(3):
        step(engine, heard)
    assert (1, 0) == (engine.engine.load().counters.preemptions, engine.engine.load().running)
    assert range(60) == engine.engine.ingests.promise(urgent)
    engine.engine.ingests.claim(None)
    engine.engine.ingests.withdraw(urgent.request_id, landing=False)
    while step(engine, heard):
        pass
    assert answers(flex, default) == heard


@pytest.mark.parametrize("others", [0, 1])
def test_room_is_offered_before_the_step_for_which_it_was_made(others: int) -> None:
    """Whoever waits for it hears of it at once, whether or not anybody is left who computes."""
    engine, heard = SmallEngine(num_blocks=40), dict[str, list[int]]()
    flex, urgent = a_prompt(Tier.FLEX, 0, 80, 24), a_prompt(Tier.PRIORITY, 1, 100)
    stays = [a_prompt(Tier.DEFAULT, 2, 20, 24)] * others
    for request in (flex, *stays):
        engine.engine.submit(request)
        step(engine, heard)
    assert engine.engine.ingests.promise(urgent) is None
    room: list[tuple[int, range | None]] = []

    def ask_again() -> None:
        room.append((engine.engine.load().counters.steps, engine.engine.ingests.promise(urgent)))
        engine.engine.ingests.claim(None)

    steps = engine.engine.load().counters.steps
    engine.engine.ingests.claim(urgent, ask_again)
    assert bool(others) == step(engine, heard)
    assert [(steps, range(100))] == room
    engine.engine.ingests.withdraw(urgent.request_id, landing=False)
    while step(engine, heard):
        pass
    assert (answers(flex, *stays), 1) == (heard, len(room))


def test_handoffs_do_not_pass_a_waiting_one_for_ever() -> None:
    """After so many that were given room, what is left is kept for the one that waits."""
    engine, heard = SmallEngine(num_blocks=24), dict[str, list[int]]()
    early, waiting = a_prompt(Tier.FLEX, 0, 60, 4), a_prompt(Tier.FLEX, 1, 60)
    engine.engine.submit(early)
    step(engine, heard)
    engine.engine.submit(waiting)
    granted = []
    for number in range(PASSES + 1):
        request = a_prompt(Tier.PRIORITY, 2 + number, 8, 1)
        granted.append(engine.engine.ingests.promise(request))
        engine.engine.ingests.withdraw(request.request_id, landing=False)
    assert [range(8)] * PASSES + [None] == granted
    while step(engine, heard):
        pass
    assert answers(early, waiting) == heard


def _nothing(plan: StepPlan) -> StepResult:
    """What comes of a step in which nobody draws a token."""
    return StepResult((None,) * len(plan.slices))
