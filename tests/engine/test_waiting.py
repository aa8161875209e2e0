"""Who is admitted first, who gives way, and who is not let in."""

import msgspec
import pytest

from tests.fakes import MODEL, POOL, a_request
from twinfer.core.block_hash import BlockHasher
from twinfer.core.errors import CapacityError
from twinfer.core.ids import RequestId
from twinfer.core.request import GenerationRequest
from twinfer.core.service import Tier
from twinfer.core.step import StepPlan, StepResult
from twinfer.engine.assemble import emulated_capabilities
from twinfer.engine.loop import EngineLoop
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
    """Priority and reserved first, flex last."""
    loop = a_loop()
    for number, tier in enumerate(TIERS):
        loop.submit(of_tier(tier, number), Purpose.ANSWER, 0.0)
    order = []
    while (plan := loop.begin(0.0)) is not None:
        order.append(plan.slices[0].request.request_id)
        loop.cancel(plan.slices[0].request.request_id)
        loop.finish(plan, _nothing(plan), 0.0)
    assert order == ["priority-2", "reserved-4", "default-1", "default-5", "flex-0", "flex-3"]


def test_flex_is_refused_first() -> None:
    """When half of the queue is taken; others have all of it."""
    loop = a_loop(max_waiting=4)
    loop.submit(of_tier(Tier.FLEX, 0), Purpose.ANSWER, 0.0)
    loop.submit(of_tier(Tier.FLEX, 1), Purpose.ANSWER, 0.0)
    with pytest.raises(CapacityError, match="the queue is full with 2 requests"):
        loop.submit(of_tier(Tier.FLEX, 2), Purpose.ANSWER, 0.0)
    loop.submit(of_tier(Tier.DEFAULT, 3), Purpose.ANSWER, 0.0)
    loop.submit(of_tier(Tier.PRIORITY, 4), Purpose.ANSWER, 0.0)
    with pytest.raises(CapacityError, match="the queue is full with 4 requests"):
        loop.submit(of_tier(Tier.PRIORITY, 5), Purpose.ANSWER, 0.0)


def _nothing(plan: StepPlan) -> StepResult:
    """What comes of a step in which nobody draws a token."""
    return StepResult((None,) * len(plan.slices))
