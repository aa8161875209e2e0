"""Answers of gpt-oss."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.gateway.formats import cut, joined, read, told
from twinfer.gateway.text.content import ReasoningDelta, TextDelta
from twinfer.gateway.text.formats.base import Event, FoundCall
from twinfer.gateway.text.formats.harmony import Harmony, HarmonyStage

THOUGHT = "<|channel|>analysis<|message|>Hm.<|end|>"
FINAL = "<|start|>assistant<|channel|>final<|message|>Hello"
CALL = '<|start|>assistant<|channel|>commentary to=functions.f <|constrain|>json<|message|>{"a": 1}<|call|>'
F = FoundCall("f", '{"a":1}')

ANSWERS: list[tuple[str, list[Event]]] = [
    (THOUGHT + FINAL, [ReasoningDelta("Hm."), TextDelta("Hello")]),
    (THOUGHT + FINAL + "<|return|>", [ReasoningDelta("Hm."), TextDelta("Hello")]),
    (THOUGHT + CALL, [ReasoningDelta("Hm."), F]),
    (CALL.removeprefix("<|start|>assistant") + CALL, [F, F]),
    (
        "<|channel|>commentary<|message|>I look.<|end|>"
        '<|start|>assistant to=functions.f<|channel|>commentary json<|message|>{"a": 1}',
        [TextDelta("I look."), F],
    ),
    ("<|channel|>commentary to=functions.f<|message|>", [FoundCall("f", "{}")]),
    ("<|channel|>analysis to=python code<|message|>1 + 1<|call|>", [ReasoningDelta("1 + 1")]),
    ('<|channel|>commentary to=functions.f <|constrain|>json<|message|>{"a":', [TextDelta('{"a":')]),
    ("<|channel|>final<|message|>a <| b <|en", [TextDelta("a <| b <|en")]),
    ("<|channel|>analy", []),
    ("no header", [TextDelta("no header")]),
    ("", []),
]


@pytest.mark.parametrize(("text", "events"), ANSWERS)
def test_headers_say_what_a_message_is(text: str, events: list[Event]) -> None:
    """Analysis is thought, a message to a function is a call, the rest is for the user; no header is ever shown."""
    assert events == joined(read(HarmonyStage(), [text]))
    assert events == joined(read(HarmonyStage(), list(text)))


FRAGMENTS = ["<|start|>", "<|channel|>", "<|message|>", "<|end|>", "<|call|>", "<|constrain|>", "<|en", "assistant"]
FRAGMENTS += ["analysis", "final", "commentary", " to=functions.f", " to=x", '{"a": 1}', "{", "hi", " ", "é🙂"]


@given(st.lists(st.sampled_from(FRAGMENTS), max_size=14).map("".join), st.lists(st.integers(0, 150), max_size=14))
def test_cutting_changes_nothing(text: str, places: list[int]) -> None:
    """Whatever a model writes: the same in pieces as in one."""
    whole, pieces = read(HarmonyStage(), [text]), read(HarmonyStage(), cut(text, places))
    assert (joined(whole), told(whole)) == (joined(pieces), told(pieces))


def test_thinking_lasts_as_long_as_the_body_of_an_analysis() -> None:
    """Tokens are counted by it."""
    stage = HarmonyStage()
    told = []
    for piece in ("<|channel|>", "analysis", "<|message|>", "Hm.", "<|end|>", "<|start|>"):
        stage.feed(piece)
        told.append(stage.thinking)
    assert [False, False, True, True, False, False] == told


def test_a_call_is_told_in_advance() -> None:
    """Its name by the header, its arguments as they are written."""
    assert [("f", '{"a": 1}')] == told(read(HarmonyStage(), list(THOUGHT + CALL)))


def test_an_opening_is_the_header_of_a_call() -> None:
    """Up to the arguments, or up to the name."""
    harmony = Harmony()
    assert [F] == joined(read(harmony.stage(frozenset()), [harmony.opening("f"), '{"a": 1}']))
    rest = 'f <|constrain|>json<|message|>{"a": 1}'
    assert [F] == joined(read(harmony.stage(frozenset()), [harmony.opening(""), rest]))
