from itertools import pairwise
from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from tests.gateway.output_shape import MODELS, check_event
from twinfer.gateway.dialects.converse_answer import ContentEvents
from twinfer.gateway.text.content import (
    Block,
    Delta,
    ReasoningBlock,
    ReasoningDelta,
    TextBlock,
    TextDelta,
    ToolCallBlock,
    ToolCallDelta,
    ToolCallStart,
    join_deltas,
)

STREAM = MODELS["bedrock-runtime"].operation_model("ConverseStream")

words = st.text(min_size=1, max_size=4)
calls = st.lists(words.map(ToolCallDelta), max_size=3).map(
    lambda parts: [ToolCallStart("tooluse_1", "look_up"), *parts]
)
runs = words.map(lambda text: [TextDelta(text)]) | words.map(lambda text: [ReasoningDelta(text)]) | calls
answers = st.lists(runs, max_size=6).map(lambda found: [delta for run in found for delta in run])


def assembled(events: list[tuple[str, dict[str, Any]]]) -> list[Block]:
    """The blocks as a client puts them together, which never looks ahead and drops what does not stop."""
    blocks: list[Block] = []
    open_block: list[dict[str, Any]] | None = None
    start: dict[str, Any] = {}
    for name, event in events:
        assert len(blocks) == event["contentBlockIndex"]
        if name == "contentBlockStart":
            assert open_block is None
            start, open_block = event["start"]["toolUse"], []
        elif name == "contentBlockDelta":
            open_block = [*(open_block or []), event["delta"]]
        else:
            assert open_block
            blocks.append(block_of(start, open_block))
            open_block, start = None, {}
    assert open_block is None
    return blocks


def block_of(start: dict[str, Any], deltas: list[dict[str, Any]]) -> Block:
    """All deltas of a block are of one kind."""
    ((kind,),) = {tuple(delta) for delta in deltas}
    if kind == "toolUse":
        assert deltas[0] == {"toolUse": {"input": ""}}
        return ToolCallBlock(start["toolUseId"], start["name"], "".join(each["toolUse"]["input"] for each in deltas))
    assert not start
    if kind == "text":
        return TextBlock("".join(each["text"] for each in deltas))
    return ReasoningBlock("".join(each["reasoningContent"]["text"] for each in deltas))


@given(deltas=answers, cuts=st.lists(st.integers(0, 20), max_size=4))
def test_a_client_assembles_what_was_generated(deltas: list[Delta], cuts: list[int]) -> None:
    """However the deltas arrive: indices ascend, each block stops, only calls start, and every event has its shape."""
    content = ContentEvents()
    bounds = [0, *sorted(min(cut, len(deltas)) for cut in cuts), len(deltas)]
    events = [event for first, last in pairwise(bounds) for event in content.feed(deltas[first:last])]
    events += content.finish()
    for name, payload in events:
        check_event(STREAM, name, msgspec.json.decode(msgspec.json.encode(payload)))
    assert (list(join_deltas(deltas)) or [TextBlock("")]) == assembled(events)


def test_what_arrives_together_shares_an_event() -> None:
    """More of the same is one frame, not one for every token."""
    deltas = [TextDelta("a"), TextDelta("b"), ToolCallStart("x", "y"), ToolCallDelta("{"), ToolCallDelta("}")]
    sent = [event["delta"] for name, event in ContentEvents().feed(deltas) if name == "contentBlockDelta"]
    assert sent == [{"text": "ab"}, {"toolUse": {"input": ""}}, {"toolUse": {"input": "{}"}}]
