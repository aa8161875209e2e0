"""Who gives way, and what that frees: blocks that others hold, too, free nothing."""

import msgspec

from tests.fakes import MODEL, POOL, a_request
from twinfer.core.block_hash import BlockHasher
from twinfer.core.service import Tier
from twinfer.core.turns import PASSES
from twinfer.engine.assemble import emulated_capabilities
from twinfer.engine.preempt import make_way, num_freed
from twinfer.engine.prefix import PrefixCache
from twinfer.engine.scheduler import Limits, Scheduler
from twinfer.engine.sequence import Purpose, TokenSequence
from twinfer.kv.block_pool import BlockPool

SIZE = 16
LIMITS = Limits(max_step_tokens=64, max_running=8, max_waiting=8, max_context_tokens=1000)


def running(name: str, tier: Tier, num_tokens: int, blocks: list[int], num_computed: int) -> TokenSequence:
    """A sequence that holds blocks, and has computed some of its prompt."""
    request = msgspec.structs.replace(a_request([1] * num_tokens, 9, name), tier=tier)
    return TokenSequence(request, Purpose.ANSWER, 0.0, blocks=blocks, num_computed=num_computed)


def test_shared_blocks_are_free_when_the_last_one_lets_go() -> None:
    """Nobody gives way for room that would not come of it."""
    holders = {1: 2, 2: 1, 3: 2, 4: 1}
    one = running("one", Tier.FLEX, 2 * SIZE, [1, 2], SIZE)
    two = running("two", Tier.FLEX, 3 * SIZE, [1, 3, 4], SIZE)  # the other holder of 3 does not yield
    assert [num_freed(some, holders.__getitem__) for some in ([], [one], [two], [one, two])] == [0, 1, 1, 3]
    for num_blocks, victims in ((1, [two]), (2, [two, one]), (3, [two, one]), (4, [])):
        assert make_way([one, two], holders.__getitem__, num_blocks, 0) == victims


def test_who_gave_way_and_is_admitted_again_in_one_plan_has_one_turn() -> None:
    """Two decoding ones find no block: the flex prompt gives way, and a long one after it, whose room brings the flex
    prompt back before its turn among those under way."""
    pool = BlockPool(11)
    hasher = BlockHasher(b"key", emulated_capabilities(MODEL, POOL).fingerprint, "", SIZE)
    scheduler = Scheduler(PrefixCache(pool, hasher), LIMITS)
    for name, tier, num_tokens, num_computed in (
        ("d1", Tier.DEFAULT, SIZE + 1, SIZE),
        ("d2", Tier.DEFAULT, SIZE + 1, SIZE),
        ("goes on", Tier.DEFAULT, 3 * SIZE, 8),
        ("long", Tier.DEFAULT, 5 * SIZE, 8),
        ("flex", Tier.FLEX, 10, 4),
    ):
        blocks = pool.allocate(max(1, num_tokens // SIZE))
        assert blocks is not None
        scheduler.running.append(running(name, tier, num_tokens, blocks, num_computed))
    for _ in range(PASSES):
        scheduler.waiting.pass_all()
    slices, _ = scheduler.plan(0.0)
    assert scheduler.num_preemptions == 2
    turns = {part.request.request_id: (part.start, part.end) for part in slices}
    assert turns == {"d1": (16, 17), "d2": (16, 17), "flex": (0, 10), "goes on": (8, 48)}
    assert len(slices) == len(turns)
