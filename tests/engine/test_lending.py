"""Cached KV on loan: held while it is, nobody else's, ordinary cache afterwards."""

from collections.abc import Sequence

import pytest

from tests.fakes import POOL, SmallEngine, a_request
from twinfer.core.errors import CapacityError
from twinfer.core.grant import Use
from twinfer.core.ids import RequestId

SIZE = POOL.block_tokens
PROMPT = list(range(40))


def with_cached(num_blocks: int = 16) -> SmallEngine:
    """An engine that has computed the prompt once."""
    engine = SmallEngine(num_blocks)
    engine.engine.submit(a_request(PROMPT, 1, "first"))
    engine.run()
    return engine


def test_lent_blocks_stay_until_they_are_returned() -> None:
    """Nobody can take them in the meantime; afterwards they are cache, with another generation."""
    engine = with_cached()
    exports = engine.engine.exports
    blocks = exports.lend(a_request(PROMPT, 1, "fetch"), 10)
    assert blocks is not None
    assert (len(blocks), engine.engine.load().blocks.live) == (10, 10)
    assert blocks == exports.lend(a_request(PROMPT, 1, "fetch"), 10)
    noted = exports.generations(blocks)
    assert engine.engine.ingests.promise(a_request([7] * 30, 1, "other")) is None
    exports.release(RequestId("fetch"))
    exports.release(RequestId("fetch"))
    counts = engine.engine.load().blocks
    assert (counts.live, counts.cached) == (0, 10)
    assert all(after > before for before, after in zip(noted, exports.generations(blocks), strict=True))


def test_what_is_not_all_here_is_not_lent() -> None:
    """Neither more than is cached, nor another tenant's, nor another salt's; and nothing stays held."""
    engine = with_cached()
    exports = engine.engine.exports
    assert exports.lend(a_request([*PROMPT, *[1] * SIZE], 1, "longer"), 11) is None
    assert exports.lend(a_request(PROMPT, 1, "stranger", "another"), 10) is None
    assert engine.engine.load().blocks.live == 0


def test_loans_are_bounded_with_parked_prompts() -> None:
    """What handoffs hold of the pool has one bound."""
    engine = with_cached()
    engine.engine.exports.max_parked_blocks = 5
    assert engine.engine.exports.lend(a_request(PROMPT, 1, "a"), 5) is not None
    with pytest.raises(CapacityError, match="5 KV blocks wait"):
        engine.engine.exports.lend(a_request(PROMPT, 1, "b"), 1)
    with pytest.raises(CapacityError, match="5 KV blocks wait"):
        engine.engine.exports.submit(a_request(PROMPT, 1, "c"))


def test_lent_blocks_are_brought_to_where_they_can_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """A device's blocks must lie in host memory before they are offered, as those of a computed prompt."""
    engine = with_cached()
    brought: list[int] = []

    def to_host(blocks: Sequence[int]) -> None:
        brought.extend(blocks)

    monkeypatch.setattr(engine.engine._runner, "to_host", to_host)
    assert engine.engine.exports.lend(a_request(PROMPT, 1, "fetch"), 10) == tuple(brought)


def test_fetched_blocks_are_cached_at_commit_and_not_before() -> None:
    """R1: a promise for the cache is of full blocks only, findable once they are whole; the answer is not decoded."""
    engine = SmallEngine(24)
    ingests = engine.engine.ingests
    prefix = a_request(PROMPT[:30], 1, "fetch")
    assert ingests.promise(prefix, use=Use.CACHE) == range(28)
    bound = ingests.bind(RequestId("fetch"))
    assert len(bound) == 7
    assert ingests.promise(a_request(PROMPT, 1, "early")) == range(40)
    ingests.withdraw(RequestId("early"), landing=False)
    ingests.commit(RequestId("fetch"), None)
    assert engine.engine.step() is None
    assert ingests.promise(a_request(PROMPT, 1, "late")) == range(28, 40)
    ingests.withdraw(RequestId("late"), landing=False)
    counts = engine.engine.load().blocks
    assert (counts.live, counts.promised, counts.free + counts.cached) == (0, 0, 24)


def test_an_empty_fetch_holds_nothing() -> None:
    """When everything is here nothing is to come, and committing that changes nothing."""
    engine = with_cached()
    ingests = engine.engine.ingests
    assert ingests.promise(a_request(PROMPT, 1, "fetch"), use=Use.CACHE) == range(40, 40)
    assert ingests.bind(RequestId("fetch")) == ()
    ingests.commit(RequestId("fetch"), None)
    counts = engine.engine.load().blocks
    assert (counts.live, counts.cached, counts.promised) == (0, 10, 0)
