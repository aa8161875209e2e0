from twinfer.gateway.text.content import (
    ReasoningBlock,
    ReasoningDelta,
    TextBlock,
    TextDelta,
    ToolCallBlock,
    ToolCallDelta,
    ToolCallStart,
    join_deltas,
)


def test_a_block_begins_with_another_kind_and_with_every_call() -> None:
    """Also where nothing but a call's start tells it from the call before."""
    deltas = (
        ReasoningDelta("h"),
        ReasoningDelta("m"),
        TextDelta("a"),
        TextDelta("b"),
        ToolCallStart("1", "f"),
        ToolCallDelta("{"),
        ToolCallDelta("}"),
        ToolCallStart("2", "g"),
        ToolCallDelta("{}"),
        TextDelta("c"),
    )
    assert join_deltas(deltas) == (
        ReasoningBlock("hm"),
        TextBlock("ab"),
        ToolCallBlock("1", "f", "{}"),
        ToolCallBlock("2", "g", "{}"),
        TextBlock("c"),
    )
    assert join_deltas(()) == ()
