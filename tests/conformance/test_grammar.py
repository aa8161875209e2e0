"""Answers held to a schema come out the same whichever way they take: whole, handed over, recovered, or guessed."""

import json
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.conformance.pair import Pair, inproc_ways, make_pair, native_maker
from tests.fakes import MODEL, POOL, SmallEngine, a_request
from tests.grammar.schemas import complaint
from twinfer.core.config import EmulationConfig, PoolConfig
from twinfer.core.errors import InvalidRequest
from twinfer.core.messages import Generate
from twinfer.core.request import GenerationRequest, Grammar, Sampling, Stopping
from twinfer.core.tokens import FinishReason, Token
from twinfer.engine.assemble import assemble, emulated_capabilities
from twinfer.engine.emulated import EmulatedRunner
from twinfer.engine.paged import PagedEngine
from twinfer.gateway.text.grammar_text import json_grammar
from twinfer.gateway.text.schema import check_schema
from twinfer.gateway.text.tokenizer import Tokenizer
from twinfer.grammar.masks import GrammarMasks
from twinfer.grammar.vocabulary import load_vocabulary
from twinfer.kv.memory import PoolMemory
from twinfer.model.checkpoint import locate
from twinfer.transport.inproc import InprocHub

END, SIZE = 1, 4096
SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"enum": ["flat is better than nested", "sparse is better than dense"]},
        "tags": {"type": "array", "items": {"enum": ["beautiful", "explicit", "simple", "complex"]}, "minItems": 1},
        "day": {"type": "string", "format": "date"},
        "sure": {"type": "boolean"},
    },
    "required": ["name", "tags", "day", "sure"],
}
GRAMMAR = Grammar(json_grammar(check_schema(SCHEMA, "here")), (END,))
TOKENIZER = Tokenizer.from_file(locate("demo") / "tokenizer.json")
PROMPT = TOKENIZER.encode("def parse(text):\n    " * 12, add_special_tokens=False)
SAMPLINGS = {
    "greedy": Sampling(temperature=0.0),
    "drawn": Sampling(temperature=1.0, seed=11, top_p=0.95, repetition_penalty=1.1, logit_bias={END: 50.0, 300: 9.0}),
}


def emulated(pool: PoolConfig, script_ids: tuple[int, ...] = ()) -> tuple[PagedEngine, PoolMemory]:
    """An emulated engine with the demo model's tokens, perhaps one that plays an answer."""
    emulation = EmulationConfig(num_layers=1, num_kv_heads=1, head_dim=8, vocab_size=SIZE, script_ids=script_ids)
    pool = msgspec.structs.replace(pool, engine="emulated", emulation=emulation)
    capabilities = msgspec.structs.replace(
        emulated_capabilities(MODEL, pool), num_blocks=128, max_context_tokens=1000, grammars=True
    )
    memory = PoolMemory(128, capabilities.layout.block_bytes, prefault=False)
    vocabulary = load_vocabulary(locate("demo"), SIZE)
    assert vocabulary is not None
    clock = SmallEngine().clock
    masks = GrammarMasks(vocabulary)
    runner = EmulatedRunner(memory.view, capabilities.layout, SIZE, emulation, clock, masks=masks)
    return assemble(pool, capabilities, runner, b"key", clock), memory


Make = Callable[[PoolConfig], tuple[PagedEngine, PoolMemory]]


@pytest.fixture(scope="module", params=["emulated", pytest.param("native", marks=pytest.mark.torch)])
def make(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Make:
    """Makes engines of one kind, with the demo model or its tokens."""
    return emulated if request.param == "emulated" else native_maker("demo", tmp_path_factory.mktemp("demo"))


def pool(speculation: str = "auto") -> PoolConfig:
    """One worker's."""
    fields: dict[str, Any] = {"engine": "native", "weights": "fp32", "block_tokens": 16, "speculation": speculation}
    return msgspec.structs.replace(POOL, **fields)


@pytest.fixture(scope="module")
def pair(make: Make) -> Iterator[Pair]:
    """A source and a sink."""
    with closing(make_pair(make, (pool(), pool()), inproc_ways(InprocHub()))) as made:
        yield made


def held(name: str, sampling: Sampling, prompt: tuple[int, ...] = PROMPT) -> GenerationRequest:
    """A request whose answer is held to the schema."""
    free = a_request(prompt, request_id=name)
    stopping = Stopping(200, stop_token_ids=(END,))
    return msgspec.structs.replace(free, stopping=stopping, sampling=sampling, grammar=GRAMMAR)


def ids(tokens: list[Token]) -> list[int]:
    """Token ids."""
    return [token.token_id for token in tokens]


@pytest.mark.parametrize("how", SAMPLINGS)
def test_whole_handed_over_and_recovered(pair: Pair, how: str) -> None:
    """The same tokens, and an answer to the schema, be it begun anywhere and continued from any token on."""
    whole = pair.generate(held(f"whole {how}", SAMPLINGS[how]))
    assert FinishReason.STOP is whole[-1].finish
    assert complaint(SCHEMA, TOKENIZER.decode(ids(whole))) is None
    split, _ = pair.hand_over(held(f"split {how}", SAMPLINGS[how]))
    assert ids(whole) == ids(split)
    for known in (1, 2, len(whole) // 2, len(whole) - 1):
        again = held(f"again {how} {known}", SAMPLINGS[how])
        pair.sink.reception.take(Generate(again, tuple(ids(whole[:known]))), pair.gateway, pair)  # type: ignore[arg-type]
        rest = []
        while (outcome := pair.sink.engine.step()) is not None:
            rest += ids(list(outcome.tokens))
        assert ids(whole[known:]) == rest


def test_company_changes_nothing(pair: Pair) -> None:
    """Answers with and without grammars side by side are those that each gets alone."""
    prompts = [PROMPT[: 20 + number] for number in range(5)]
    greedy = SAMPLINGS["greedy"]
    alone = [ids(pair.generate(held(f"alone {number}", greedy, prompt))) for number, prompt in enumerate(prompts)]
    free = ids(pair.generate(a_request(prompts[0], 20, "free alone")))
    engine = pair.sink.engine
    for number, prompt in enumerate(prompts):
        engine.submit(held(f"{number}", greedy, prompt))
    engine.submit(a_request(prompts[0], 20, "free"))
    found: dict[str, list[int]] = {}
    while (outcome := engine.step()) is not None:
        assert outcome.failed == ()
        for token in outcome.tokens:
            found.setdefault(token.request_id, []).append(token.token_id)
    assert {str(number): answer for number, answer in enumerate(alone)} | {"free": free} == found


@pytest.mark.torch
def test_guesses_change_nothing(tmp_path: Path) -> None:
    """Where an answer repeats itself: guesses are made, some are right, and the tokens are the same."""
    same = {"enum": ["complex is better than complicated", "simple is better than complex"]}
    schema = {"type": "object", "properties": {name: same for name in "abcdef"}, "required": list("abcdef")}
    grammar = Grammar(json_grammar(check_schema(schema, "here")), (END,))
    found = {}
    for speculation in ("off", "lookup"):
        engine, memory = native_maker("demo", tmp_path)(pool(speculation))
        with closing(memory):
            asked = msgspec.structs.replace(held("r", SAMPLINGS["greedy"]), grammar=grammar)
            engine.submit(asked)
            answer: list[int] = []
            while (outcome := engine.step()) is not None:
                assert outcome.failed == ()
                answer += ids(list(outcome.tokens))
            found[speculation] = answer, engine.load().counters.right_guesses
    (plain, none), (guessed, right) = found["off"], found["lookup"]
    assert (plain, 0) == (guessed, none)
    assert right > 0


def test_a_grammar_that_a_worker_cannot_read_fails_its_request_alone(pair: Pair) -> None:
    """The others of the step go on."""
    engine = pair.sink.engine
    broken = msgspec.structs.replace(held("broken", SAMPLINGS["greedy"]), grammar=Grammar("start: (", (END,)))
    engine.submit(broken)
    engine.submit(a_request(PROMPT, 3, "fine"))
    failed, drawn = [], 0
    while (outcome := engine.step()) is not None:
        failed += [(failure.request_id, failure.reason.partition(":")[0]) for failure in outcome.failed]
        drawn += len(outcome.tokens)
    assert ([("broken", "the answer cannot follow its grammar")], 3) == (failed, drawn)


def test_an_engine_without_tokens_refuses() -> None:
    """It says so before it computes anything."""
    with pytest.raises(InvalidRequest, match=r"no tokenizer\.json"):
        SmallEngine().engine.submit(msgspec.structs.replace(a_request((1, 2)), grammar=GRAMMAR))


def test_the_schema_s_answers_are_told_apart() -> None:
    """What the other tests rely on: something else is no answer."""
    assert complaint(SCHEMA, json.dumps({"name": "other"})) is not None


def test_a_script_is_played_whatever_the_grammar() -> None:
    """A client's test can ask for a schema and be given what its script says."""
    engine, memory = emulated(pool(), script_ids=(5, 6, 7))
    with closing(memory):
        engine.submit(msgspec.structs.replace(held("r", SAMPLINGS["greedy"]), stopping=Stopping(4)))
        steps = iter(engine.step, None)
        assert [5, 6, 7, 7] == [token.token_id for outcome in steps for token in outcome.tokens]
