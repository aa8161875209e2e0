"""Thoughts before the answer."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.gateway.formats import cut, joined, read
from twinfer.gateway.text.content import ReasoningDelta, TextDelta
from twinfer.gateway.text.formats.base import Event, FoundCall
from twinfer.gateway.text.formats.hermes import Hermes
from twinfer.gateway.text.manner import TextStage
from twinfer.gateway.text.think import ThinkStage

ANSWERS: list[tuple[str, bool, list[Event]]] = [
    ("<think>\nHm, so.\n</think>\n\nHello.\n", False, [ReasoningDelta("Hm, so."), TextDelta("Hello.\n")]),
    ("Hm, so.\n</think>\n\nHello.", True, [ReasoningDelta("Hm, so."), TextDelta("Hello.")]),
    ("<think>Hm.</think>Hello.", True, [ReasoningDelta("Hm."), TextDelta("Hello.")]),
    ("\n<think>\n\n</think>\n\nHello.", False, [TextDelta("Hello.")]),
    (" Hello <think>x</think>", False, [TextDelta(" Hello <think>x</think>")]),
    ("<thin", False, [TextDelta("<thin")]),
    ("<think>never </th", False, [ReasoningDelta("never </th")]),
    ("never done", True, [ReasoningDelta("never done")]),
    ("", True, []),
]


@pytest.mark.parametrize(("text", "opened", "events"), ANSWERS)
def test_thoughts_are_told_from_the_answer(text: str, opened: bool, events: list[Event]) -> None:
    """Marks and the white space around them belong to neither; later marks are words; an answer may be all thought."""
    assert events == joined(read(ThinkStage(TextStage(), opened), [text]))
    assert events == joined(read(ThinkStage(TextStage(), opened), list(text)))


FRAGMENTS = [
    "<think>",
    "</think>",
    "<th",
    "</",
    "ink>",
    " ",
    "\n",
    "hm",
    "<tool_call>",
    '{"name": "f"}',
    "</tool_call>",
]


@given(
    st.lists(st.sampled_from(FRAGMENTS), max_size=10).map("".join),
    st.booleans(),
    st.lists(st.integers(0, 80), max_size=10),
)
def test_cutting_changes_nothing(text: str, opened: bool, places: list[int]) -> None:
    """Whatever a model writes: the same in pieces as in one."""
    whole, pieces = (ThinkStage(Hermes().stage(frozenset()), opened) for _ in range(2))
    assert joined(read(whole, [text])) == joined(read(pieces, cut(text, places)))


def test_calls_come_after_thoughts_only() -> None:
    """What is thought about a call is none."""
    call = '<tool_call>{"name": "f"}</tool_call>'
    events = joined(read(ThinkStage(Hermes().stage(frozenset()), opened=True), [f"a {call} b</think>{call}"]))
    assert [ReasoningDelta(f"a {call} b"), FoundCall("f", "{}")] == events
