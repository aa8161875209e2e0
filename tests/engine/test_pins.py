"""Prompts that are kept for their cache points, by an engine that computes nothing but cannot be fooled."""

import msgspec
import pytest

from tests.fakes import MODEL, POOL, a_request
from twinfer.core.block_hash import BlockHasher
from twinfer.core.ids import RequestId, TenantId
from twinfer.core.request import GenerationRequest, Pin
from twinfer.core.service import Tier
from twinfer.core.step import Draw, StepResult
from twinfer.core.tokens import Timings
from twinfer.engine.assemble import emulated_capabilities
from twinfer.engine.loop import EngineLoop
from twinfer.engine.scheduler import Limits
from twinfer.engine.sequence import Purpose
from twinfer.kv.block_pool import BlockPool

SIZE = 16
CAPABILITIES = emulated_capabilities(MODEL, POOL)


def a_loop(num_blocks: int = 16, max_pinned: int = 8) -> EngineLoop:
    """An engine's pure half."""
    hasher = BlockHasher(b"key", CAPABILITIES.fingerprint, "", SIZE)
    return EngineLoop(BlockPool(num_blocks, max_pinned), hasher, Limits(1024, 8, 8, 10_000), None)


def asking(number: int, num_tokens: int, tenant: str = "acme", *pins: Pin, first: int = 0) -> GenerationRequest:
    """A prompt that begins with token ``first``, and counts from there."""
    request = a_request(list(range(first, first + num_tokens)), 1)
    return msgspec.structs.replace(
        request, request_id=RequestId(f"r{number}"), tenant=TenantId(tenant), pins=tuple(pins)
    )


def run(loop: EngineLoop, request: GenerationRequest, now: float, purpose: Purpose = Purpose.ANSWER) -> Timings:
    """Compute it to its end."""
    loop.submit(request, purpose, now)
    while True:
        plan = loop.begin(now)
        assert plan is not None
        draws = tuple(None if part.sample_index is None else Draw(7) for part in plan.slices)
        outcome = loop.finish(plan, StepResult(draws), now)
        if outcome.finished:
            loop.cancel(request.request_id)
            return outcome.finished[0][1]


def found_and_pinned(timings: Timings) -> tuple[int, int]:
    """What a client's accounts are made of."""
    return timings.cached_tokens, timings.pinned_tokens


@pytest.mark.parametrize("purpose", list(Purpose))
@pytest.mark.parametrize("tier", list(Tier))
def test_the_same_tenant_hits_and_another_misses(purpose: Purpose, tier: Tier) -> None:
    """In every tier and for either purpose, with and without a pin, and with another salt."""
    for pins in ((), (Pin(64, 300.0),)):
        loop = a_loop(32)
        requests = [
            msgspec.structs.replace(asking(number, 70, tenant, *pins), tier=tier, cache_salt=salt)
            for number, (tenant, salt) in enumerate((("acme", ""), ("acme", ""), ("beta", ""), ("acme", "x")))
        ]
        hits = [run(loop, request, 0.0, purpose).cached_tokens for request in requests]
        assert hits == [0, 64, 0, 0]


def test_a_pin_outlives_ordinary_cache() -> None:
    """Until its time is over: then it goes first come, first served like all others; a hit begins its time anew."""
    loop = a_loop(16)
    pin = Pin(64, 300.0)
    assert found_and_pinned(run(loop, asking(0, 70, "acme", pin), 0.0)) == (0, 64)
    number = 1
    for now in (0.0, 200.0):
        for _ in range(4):
            run(loop, asking(number, 150, "beta", first=1000 * number), now)
            number += 1
        assert found_and_pinned(run(loop, asking(number, 70, "acme", pin), now)) == (64, 64)
        number += 1
    assert loop.pool.counts().pinned == 4
    for step in range(4):
        run(loop, asking(number + step, 150, "beta", first=1000 * (number + step)), 500.0)
    assert loop.pool.counts().pinned == 0
    assert run(loop, asking(99, 70, "acme"), 500.0).cached_tokens == 0


def test_only_whole_blocks_are_kept() -> None:
    """And of several beginnings the longest counts."""
    loop = a_loop()
    assert found_and_pinned(run(loop, asking(0, 70, "acme", Pin(15, 1.0)), 0.0)) == (0, 0)
    assert found_and_pinned(run(loop, asking(1, 70, "beta", Pin(20, 9.0), Pin(50, 1.0)), 0.0)) == (0, 48)


def test_a_tenant_s_pins_are_bounded() -> None:
    """What is beyond the bound is ordinary cache; other tenants have a bound of their own."""
    loop = a_loop(32, max_pinned=3)
    assert found_and_pinned(run(loop, asking(0, 100, "acme", Pin(96, 9.0)), 0.0)) == (0, 48)
    assert found_and_pinned(run(loop, asking(1, 100, "acme", Pin(96, 9.0), first=500), 0.0)) == (0, 0)
    assert found_and_pinned(run(loop, asking(2, 100, "beta", Pin(96, 9.0)), 0.0)) == (0, 48)
    run(loop, asking(3, 5), 10.0)
    assert found_and_pinned(run(loop, asking(4, 100, "acme", Pin(96, 9.0), first=900), 10.0)) == (0, 48)


def test_pins_are_no_claim() -> None:
    """A request that needs all of the pool gets it, while nobody else holds it."""
    loop = a_loop(8, max_pinned=8)
    run(loop, asking(0, 120, "acme", Pin(112, 3600.0)), 0.0)
    assert loop.pool.counts().pinned == 7
    assert run(loop, asking(1, 120, "beta", first=1000), 0.0).cached_tokens == 0
    counts = loop.pool.counts()
    assert (counts.live, counts.pinned, counts.free + counts.cached) == (0, 0, 8)
