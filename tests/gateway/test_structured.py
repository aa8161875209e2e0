"""From tokens to deltas where calls and thoughts are looked for."""

import itertools
import json
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import AddedToken

from tests.gateway.house import byte_level_backend
from twinfer.gateway.text.content import (
    Delta,
    ReasoningBlock,
    ReasoningDelta,
    TextBlock,
    TextDelta,
    ToolCallBlock,
    ToolCallDelta,
    join_deltas,
)
from twinfer.gateway.text.formats.base import Stage
from twinfer.gateway.text.formats.hermes import Hermes
from twinfer.gateway.text.formats.mistral import Mistral
from twinfer.gateway.text.manner import TextStage
from twinfer.gateway.text.stop import StopSet
from twinfer.gateway.text.structured import CallRules, StructuredReading
from twinfer.gateway.text.think import ThinkStage
from twinfer.gateway.text.tokenizer import Tokenizer


def marked_tokenizer() -> Tokenizer:
    """One in which Mistral's mark is a special token, and the others are words."""
    backend = byte_level_backend()
    backend.add_special_tokens(["[TOOL_CALLS]"])
    backend.add_tokens([AddedToken(word) for word in ("<tool_call>", "</tool_call>", "<think>", "</think>")])
    return Tokenizer(backend)


TOKENIZER = marked_tokenizer()
MARK = TOKENIZER.id_of("[TOOL_CALLS]")
assert MARK is not None
CALL = '<tool_call>{"name": "f", "arguments": {"a": "END"}}</tool_call>'


def reading(
    stage: Stage, *stops: str, opening: str = "", only_one: bool = False, whole: bool = True
) -> StructuredReading:
    """A fresh one; ids of calls count from 0."""
    numbers = itertools.count()
    rules = CallRules(lambda: f"call_{next(numbers)}", opening, only_one, whole)
    marks = {MARK: "[TOOL_CALLS]"} if MARK is not None else {}
    return StructuredReading(TOKENIZER.detokenizer(), StopSet(stops), marks, stage, rules)


def hermes() -> Stage:
    """Thoughts and calls."""
    return ThinkStage(Hermes().stage(frozenset()), opened=False)


def ids(text: str) -> tuple[int, ...]:
    """Tokens of a text."""
    return TOKENIZER.encode(text, add_special_tokens=False)


def play(one: StructuredReading, batches: Sequence[Sequence[int]]) -> list[Delta]:
    """All deltas of an answer whose tokens come in these batches."""
    deltas: list[Delta] = []
    for batch in batches:
        for token_id in batch:
            if not one.done:
                one.feed(token_id)
        deltas += one.take()
    one.finish()
    return deltas + list(one.take())


def test_thoughts_text_and_calls_become_blocks_in_order() -> None:
    """The gateway names the calls; reasoning tokens are those between the marks, and the marks."""
    one = reading(hermes())
    deltas = play(one, [[token_id] for token_id in ids(f"<think>Hm.</think>\nHello\n{CALL}{CALL}")])
    block = ToolCallBlock("call_0", "f", '{"a":"END"}')
    assert join_deltas(deltas) == (
        ReasoningBlock("Hm."),
        TextBlock("Hello"),
        block,
        ToolCallBlock("call_1", block.name, block.json),
    )
    assert one.num_reasoning_tokens == len(ids("<think>Hm.</think>"))


def test_special_tokens_are_seen_by_the_stage_only() -> None:
    """They detokenise to nothing, also in what turns out to be no call."""
    source = "Hello[TOOL_CALLS]f[ARGS]{}"
    assert MARK in ids(source)
    found = play(reading(Mistral(newer=True).stage(frozenset())), [ids(source)])
    assert join_deltas(found) == (TextBlock("Hello"), ToolCallBlock("call_0", "f", "{}"))
    broken = play(reading(Mistral(newer=True).stage(frozenset())), [ids("Hello [TOOL_CALLS]f[ARGS]{")])
    assert join_deltas(broken) == (TextBlock("Hello f[ARGS]{"),)


def test_a_mark_ends_what_stands_before_it() -> None:
    """An incomplete character does not wait for bytes from beyond."""
    start = next(i for i in range(TOKENIZER.num_tokens) if TOKENIZER.token_bytes(i) == b"\xe6")
    found = play(reading(Mistral(newer=True).stage(frozenset())), [[start, *ids("[TOOL_CALLS]f{}")]])
    assert join_deltas(found) == (TextBlock("\N{REPLACEMENT CHARACTER}"), ToolCallBlock("call_0", "f", "{}"))


def test_stop_strings_are_looked_for_in_text_only() -> None:
    """Not in thoughts, not in a call, not from one text to the next; found in text, they end everything."""
    one = reading(hermes(), "END")
    deltas = play(one, [ids(f"<think>END</think>a EN{CALL}D b"), ids("E"), ids(f"NDx{CALL}")])
    assert join_deltas(deltas) == (
        ReasoningBlock("END"),
        TextBlock("a EN"),
        ToolCallBlock("call_0", "f", '{"a":"END"}'),
        TextBlock("D b"),
    )
    assert (one.stopped, one.done) == ("END", True)


def test_a_call_that_was_begun_in_the_prompt_is_whole() -> None:
    """Its opening counts as read; the only one that is wanted ends the answer."""
    opening = Hermes().opening("f")
    one = reading(hermes(), opening=opening, only_one=True)
    assert one.lacks_call
    deltas = play(one, [ids(' {"b": 1}}'), ids(f"</tool_call>{CALL}")])
    assert join_deltas(deltas) == (ToolCallBlock("call_0", "f", '{"b":1}'),)
    assert (one.done, one.lacks_call, one.stopped) == (True, False, None)


def test_a_call_that_was_begun_in_vain_shows_what_the_model_wrote() -> None:
    """Not the opening, which it did not."""
    one = reading(hermes(), opening=Hermes().opening("f"))
    assert join_deltas(play(one, [ids(" I would rather not.")])) == (TextBlock(" I would rather not."),)
    assert (one.lacks_call, one.done) == (True, False)
    newer = Mistral(newer=True)
    other = reading(newer.stage(frozenset()), opening=newer.opening("f"))
    assert join_deltas(play(other, [ids("no " * 200)])) == (TextBlock("no " * 200),)


def test_arguments_may_be_shown_while_they_are_written() -> None:
    """A stream need not wait for a long call's end; what it shows in sum is the call."""
    one = reading(hermes(), whole=False)
    deltas = play(one, [[token_id] for token_id in ids(f"Hello \n{CALL} \n{CALL}Bye")])
    text, first, second, last = join_deltas(deltas)
    assert (text, last) == (TextBlock("Hello"), TextBlock("Bye"))
    for block in (first, second):
        assert isinstance(block, ToolCallBlock)
        assert ("f", {"a": "END"}) == (block.name, json.loads(block.json))
    assert len([delta for delta in deltas if isinstance(delta, ToolCallDelta)]) > 6
    assert not one.lacks_call


@pytest.mark.parametrize("rest", ["", "'}} and more", '"}, 7}</tool_call> and more'])
def test_a_shown_call_that_breaks_ends_the_answer(rest: str) -> None:
    """It cannot become text any more: what was shown begins an object, and nothing comes after it."""
    one = reading(hermes(), whole=False)
    blocks = join_deltas(play(one, [ids(' <tool_call>{"name": "f", "arguments": {"a": "x' + rest)]))
    assert isinstance(blocks[0], ToolCallBlock)
    assert (1, "f", True) == (len(blocks), blocks[0].name, blocks[0].json.startswith('{"a": "x'))
    assert one.lacks_call


def test_a_call_that_is_not_told_in_advance_is_shown_whole() -> None:
    """Its arguments came before its name, or are none."""
    one = reading(hermes(), whole=False)
    assert join_deltas(play(one, [ids('<tool_call>{"arguments": {"a": 1}, "name": "f"}</tool_call>')])) == (
        ToolCallBlock("call_0", "f", '{"a":1}'),
    )


def test_all_text_is_the_same_as_in_plain_reading() -> None:
    """Also an incomplete character at the end."""
    start = next(i for i in range(TOKENIZER.num_tokens) if TOKENIZER.token_bytes(i) == b"\xe6")
    assert play(reading(TextStage()), [[*ids("né"), start]]) == [
        TextDelta("né"),
        TextDelta("\N{REPLACEMENT CHARACTER}"),
    ]


TEXTS = ["<think>", "</think>", "hm 東京", "\n", CALL, "[TOOL_CALLS]", "<tool_call>{", "ENDE", "EN", "D", "🙂 "]


@given(
    st.lists(st.sampled_from(TEXTS), max_size=8).map("".join),
    st.lists(st.integers(1, 5), max_size=40),
    st.booleans(),
    st.booleans(),
)
def test_batches_change_nothing(text: str, sizes: list[int], only_one: bool, whole: bool) -> None:
    """However tokens come together: the same blocks, the same counts, the same end; deltas are never empty."""
    tokens, batches = ids(text), []
    for size in sizes:
        batches.append(tokens[:size])
        tokens = tokens[size:]
    batches.append(tokens)
    streamed = reading(hermes(), "ENDE", only_one=only_one, whole=whole)
    singly = reading(hermes(), "ENDE", only_one=only_one, whole=whole)
    deltas = play(streamed, batches)
    blocks = join_deltas(play(singly, [[token_id] for token_id in ids(text)]))
    assert blocks == join_deltas(deltas)
    assert (streamed.stopped, streamed.done) == (singly.stopped, singly.done)
    assert streamed.num_reasoning_tokens == singly.num_reasoning_tokens
    for delta in deltas:
        assert not isinstance(delta, TextDelta | ReasoningDelta) or delta.text
    calls = [block for block in blocks if isinstance(block, ToolCallBlock)]
    for call in calls[: len(calls) - (not whole and streamed.lacks_call)]:
        assert isinstance(json.loads(call.json), dict)
    assert not only_one or len(calls) <= 1
