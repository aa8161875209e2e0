"""Grammars of answers against what reads answers: any answer that a grammar permits is read as what was asked for."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import Any

import pytest
from tokenizers import AddedToken

from tests.gateway import templates
from tests.gateway.house import EOS, byte_level_backend, checkpoint
from tests.grammar.schemas import complaint
from tests.grammar.walk import Walker
from twinfer.core.config import ModelConfig
from twinfer.core.errors import InvalidRequest
from twinfer.gateway.loading import load_model
from twinfer.gateway.models import Layout, ServedModel
from twinfer.gateway.readings import ReadingPlan
from twinfer.gateway.text.chat import ChatTemplate
from twinfer.gateway.text.content import Block, TextBlock, ToolCallBlock, join_deltas
from twinfer.gateway.text.conversation import Calling, Conversation, JsonOutput, Tool, say
from twinfer.gateway.text.formats.base import ToolFormat
from twinfer.gateway.text.formats.harmony import Harmony
from twinfer.gateway.text.formats.hermes import Hermes
from twinfer.gateway.text.formats.llama3 import Llama3
from twinfer.gateway.text.formats.mistral import Mistral
from twinfer.gateway.text.grammar_text import Written, needs_grammar
from twinfer.gateway.text.manner import Manner
from twinfer.gateway.text.schema import check_schema
from twinfer.gateway.text.stop import StopSet
from twinfer.grammar.token_table import read_token_table

SIZE = 430
WEATHER = Tool(
    "weather",
    "Looks up.",
    {
        "type": "object",
        "properties": {"city": {"type": "string", "description": "Where."}, "days": {"enum": [1, 2]}},
        "required": ["city", "days"],
    },
    strict=True,
)
CLOCK = Tool("time_at", "", {"type": "object", "properties": {"utc": {"type": "boolean"}}}, strict=True)
SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "null"}}, "required": ["a"]}
SPECIAL_MARKS = [*Harmony.marks, "[TOOL_CALLS]", "[ARGS]", "[CALL_ID]", "<|python_tag|>"]
WORDS = ["<tool_call>", "</tool_call>", "<think>", "</think>", '{"', '"}']


@dataclass
class Models:
    """A model of a vocabulary with all families' marks, in the manner of any of them."""

    base: ServedModel
    walker: Walker

    def of(self, tools: ToolFormat | None, reasoning: Any = "none", template: str = templates.THINKING) -> ServedModel:
        return replace(self.base, template=ChatTemplate(template, {}), manner=Manner(tools, reasoning))


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Models:
    """Made once: small, but every byte is in it."""
    directory = checkpoint(tmp_path_factory.mktemp("marked"))
    backend = byte_level_backend()
    backend.add_special_tokens(SPECIAL_MARKS)
    backend.add_tokens([AddedToken(word, special=False) for word in WORDS])
    backend.save(str(directory / "tokenizer.json"))
    shape = json.loads((directory / "config.json").read_text()) | {"vocab_size": SIZE}
    (directory / "config.json").write_text(json.dumps(shape))
    walker = Walker(read_token_table(directory / "tokenizer.json", SIZE), EOS)
    return Models(load_model(ModelConfig(id="m"), directory), walker)


FAMILIES: dict[str, tuple[Any, ...]] = {
    "hermes": (Hermes(), "none"),
    "hermes that thinks": (Hermes(), "think"),
    "hermes that may think": (Hermes(), "think", templates.HERMES),
    "llama3": (Llama3(), "none"),
    "mistral": (Mistral(newer=False), "none"),
    "newer mistral": (Mistral(newer=True), "none"),
    "harmony": (Harmony(), "harmony"),
}
family = pytest.mark.parametrize("name", FAMILIES)


def talk(**wishes: Any) -> Conversation:
    """A conversation with two strict tools."""
    return Conversation((say("user", "hi"),), **{"tools": (WEATHER, CLOCK), **wishes})


def grammar(model: ServedModel, conversation: Conversation, layout: Layout) -> str:
    """What the answers are held to."""
    assert needs_grammar(conversation)
    assert model.grammars is not None
    written = Written(model.manner, layout.thinking, layout.opening, model.special_marks())
    return model.grammars.write(conversation, written)


def answers(models: Models, model: ServedModel, conversation: Conversation, number: int = 40) -> list[Sequence[Block]]:
    """What is read of whole answers in which any token was drawn that was permitted."""
    layout = model.lay_out(conversation)
    source = grammar(model, conversation, layout)
    found = []
    for seed in range(number):
        drawn = models.walker.answer(source, Random(seed), 300)
        if drawn is None:
            continue
        reading = ReadingPlan(model, conversation, layout, StopSet(()), "call_", True).open()
        for token_id in drawn:
            if not reading.done:
                reading.feed(token_id)
        reading.finish()
        assert not reading.lacks_call
        found.append(join_deltas(reading.take()))
    assert len(found) > number / 4
    return found


def calls(blocks: Sequence[Block]) -> list[ToolCallBlock]:
    """Those among an answer's blocks."""
    return [block for block in blocks if isinstance(block, ToolCallBlock)]


def check_arguments(blocks: Sequence[Block]) -> None:
    """Every call is of a tool and has such arguments."""
    schemas = {tool.name: tool.parameters for tool in (WEATHER, CLOCK)}
    for call in calls(blocks):
        assert complaint(schemas[call.name], call.json) is None


@family
@pytest.mark.parametrize("tool", ["", "weather"])
def test_a_forced_call_comes(models: Models, name: str, tool: str) -> None:
    """Whatever is drawn: any of the tools, or the one that is named, once, with arguments that fit."""
    model = models.of(*FAMILIES[name])
    named = set()
    for blocks in answers(models, model, talk(calling=Calling.ANY, tool=tool)):
        assert calls(blocks)
        assert all(isinstance(block, ToolCallBlock) for block in blocks if not is_blank(block))
        check_arguments(blocks)
        named |= {call.name for call in calls(blocks)}
        assert len(calls(blocks)) == 1 or not tool
    assert ({"weather"} if tool else {"weather", "time_at"}) == named


@family
def test_strict_tools_are_called_rightly_or_not_at_all(models: Models, name: str) -> None:
    """Text is free, and so is whether there are calls."""
    model = models.of(*FAMILIES[name])
    model.lay_out(talk())
    for blocks in answers(models, model, talk()):
        check_arguments(blocks)


@family
def test_an_answer_may_begin_a_call_only_to_finish_it(models: Models, name: str) -> None:
    """After the mark there is nothing but a call: the grammar forbids another name, and other arguments."""
    model = models.of(*FAMILIES[name])
    tools = FAMILIES[name][0]
    layout = model.lay_out(talk())
    matcher = models.walker.vocabulary.matcher(grammar(model, talk(), layout))

    def num_read(text: str) -> tuple[int, int]:
        ids = model.tokenizer.encode("</think>" * layout.thinking + text, add_special_tokens=False)
        matcher.reset()
        return matcher.try_consume_tokens(list(ids)), len(ids)

    opening = tools.opening("weather")
    for right in (opening, f'{opening} {{"city":"x","days":2}}{tools.frame.tail}'):
        read, whole = num_read(right)
        assert read == whole
    for wrong in (tools.opening("other"), f'{opening} {{"city":3', f'{opening} {{"city":"x"}}', f"{opening} no"):
        read, whole = num_read(wrong)
        assert read < whole


@pytest.mark.parametrize("name", ["none", *FAMILIES])
@pytest.mark.parametrize("offered", [(), (WEATHER,)])
def test_what_is_said_is_json(models: Models, name: str, offered: tuple[Tool, ...]) -> None:
    """After thoughts, where there are any; unless it is a call."""
    manner = FAMILIES.get(name, (None, "none"))
    if offered and manner[0] is None:
        return
    conversation = talk(tools=offered, output=JsonOutput(check_schema(SCHEMA, "here"), "here"))
    for blocks in answers(models, models.of(*manner), conversation):
        check_arguments(blocks)
        texts = [block.text for block in blocks if isinstance(block, TextBlock) and not is_blank(block)]
        assert len(texts) == 1 or calls(blocks)
        assert [complaint(SCHEMA, text) for text in texts] == [None] * len(texts)


def test_a_thought_that_the_prompt_begins(models: Models) -> None:
    """It ends before what is said."""
    model = models.of(None, "think", templates.THINKING + "<think>\n")
    conversation = talk(tools=(), output=JsonOutput(SCHEMA, "here"))
    assert model.lay_out(conversation).thinking
    for blocks in answers(models, model, conversation):
        assert complaint(SCHEMA, blocks[-1].text if isinstance(blocks[-1], TextBlock) else "") is None


def test_forced_tools_that_are_not_strict(models: Models) -> None:
    """As much of their schema is held to as can be; they are objects in any case."""
    some = Tool(
        "weather", "", {"properties": {"n": {"type": "integer", "minimum": 3, "maximum": 4}}, "required": ["n"]}
    )
    none = Tool("time_at", "", {"type": "object", "properties": {"n": {"type": "string", "pattern": "(?<x>"}}})
    found = answers(models, models.of(Hermes()), talk(tools=(some, none), calling=Calling.ANY, parallel=False))
    made = {call.name: json.loads(call.json) for blocks in found for call in calls(blocks)}
    assert {"weather", "time_at"} == set(made)
    assert made["weather"]["n"] in (3, 4)


def test_tools_without_strictness_or_force_change_nothing() -> None:
    """Nor do strict ones that must not be called."""
    loose = replace(WEATHER, strict=False)
    assert not needs_grammar(talk(tools=(loose,)))
    assert not needs_grammar(talk(calling=Calling.NONE))


def test_what_nothing_satisfies(models: Models) -> None:
    """Is refused where it stands, every time."""
    nothing = JsonOutput({"type": "null", "enum": ["a"]}, "the.request")
    for _ in range(2):
        with pytest.raises(InvalidRequest, match="cannot be used: ") as refused:
            answers(models, models.of(None), talk(tools=(), output=nothing))
        assert "the.request" == refused.value.where


def test_a_schema_that_makes_too_large_a_grammar(models: Models) -> None:
    """Is refused unread."""
    huge = JsonOutput({"enum": [f"{number:06}" for number in range(30_000)]}, "here")
    with pytest.raises(InvalidRequest, match="characters, more than 200000"):
        answers(models, models.of(None), talk(tools=(), output=huge))


def is_blank(block: Block) -> bool:
    """White space between calls."""
    return isinstance(block, TextBlock) and not block.text.strip()


def test_marks_are_where_the_tests_need_them(models: Models, tmp_path: Path) -> None:
    """Some are special tokens, others words, and all are in the vocabulary."""
    tokenizer = models.base.tokenizer
    assert all(tokenizer.is_special(tokenizer.id_of(mark) or 0) for mark in SPECIAL_MARKS)
    assert max(tokenizer.id_of(word) or SIZE for word in WORDS) < SIZE
