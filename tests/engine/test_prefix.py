"""Whose numbers a prefix holds: KV of another provenance is never found as the engine's own."""

from tests.fakes import POOL, SmallEngine, a_request
from twinfer.core.ids import RequestId
from twinfer.core.tokens import Token

FOREIGN, OTHER = "bf16/bf16", "fp16/fp16"
PROMPT = list(range(40))
SIZE = POOL.block_tokens


def finish(engine: SmallEngine) -> None:
    """Step until nothing is left to do."""
    while engine.engine.step() is not None:
        pass


def ingest(engine: SmallEngine, prompt: list[int], foreign: str, name: str = "in") -> int:
    """Take a prompt's KV in and decode it to the end; how many of its tokens were here."""
    request = a_request(prompt, 6, name)
    to_come = engine.engine.ingests.promise(request, foreign)
    assert to_come is not None
    engine.engine.ingests.bind(RequestId(name))
    engine.engine.ingests.commit(RequestId(name), Token(RequestId(name), 0, 7))
    finish(engine)
    return to_come.start


def cached(engine: SmallEngine, prompt: list[int], foreign: str = "") -> int:
    """How many tokens of a prompt a request finds that may build on ``foreign``."""
    before = engine.engine.load().counters.cached_tokens
    engine.engine.submit(a_request(prompt, 1, f"ask {len(prompt)} {foreign} {before}"), (), foreign)
    finish(engine)
    return engine.engine.load().counters.cached_tokens - before


def test_foreign_kv_is_found_by_those_who_ask_for_it() -> None:
    """A plain request finds none of it, one that may build on that provenance all of it, another's nothing."""
    engine = SmallEngine(64)
    ingest(engine, PROMPT, FOREIGN)
    counts = [engine.engine.ingests.promise(a_request([*PROMPT, 1], 1, who), who) for who in (FOREIGN, OTHER, "")]
    assert counts == [range(40, 41), range(41), range(41)]
    for who in (FOREIGN, OTHER, ""):
        engine.engine.ingests.withdraw(RequestId(who), landing=False)
    assert cached(engine, [*PROMPT, 1]) == 0


def test_own_kv_is_found_by_all() -> None:
    """The engine's own numbers are better than anybody's."""
    engine = SmallEngine(64)
    cached(engine, PROMPT)
    assert ingest(engine, [*PROMPT, 1], FOREIGN) == 40


def test_what_builds_on_foreign_kv_is_foreign_too() -> None:
    """Tokens decoded after an ingested prompt, and prompts continued from it, stay in the mixture's chain."""
    engine = SmallEngine(64)
    ingest(engine, PROMPT[:38], FOREIGN)
    answer = engine.engine.ingests.promise(a_request([*PROMPT[:38], 7], 1, "x"), FOREIGN)
    assert answer == range(36, 39)
    engine.engine.ingests.withdraw(RequestId("x"), landing=False)
    assert cached(engine, PROMPT + [1] * 8, FOREIGN) == 36
    assert cached(engine, PROMPT + [1] * 8) == 0
    assert cached(engine, PROMPT + [1] * 8, FOREIGN) == 44


def test_own_prefix_and_foreign_rest() -> None:
    """A run may begin with own blocks and go on with foreign ones; a plain request stops at the border."""
    engine = SmallEngine(64)
    cached(engine, PROMPT[:16])
    assert ingest(engine, PROMPT, FOREIGN) == 16
    assert ingest(engine, [*PROMPT, 1], FOREIGN, "again") == 40
    assert cached(engine, [*PROMPT, 2]) == 16


def test_a_request_that_finds_nothing_foreign_stays_plain() -> None:
    """Being allowed to build on foreign KV does not make one's own foreign."""
    engine = SmallEngine(64)
    cached(engine, PROMPT, FOREIGN)
    assert cached(engine, [*PROMPT, 1]) == 40


def test_own_provenance_is_one_chain() -> None:
    """An ingest of the engine's own provenance is its own cache afterwards."""
    engine = SmallEngine(64)
    ingest(engine, PROMPT, "")
    assert cached(engine, [*PROMPT, 1]) == 40
