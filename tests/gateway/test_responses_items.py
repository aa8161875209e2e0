"""Items of a response while they are written."""

from twinfer.gateway.dialects.responses_items import ItemEvents
from twinfer.gateway.text.content import TextDelta, ToolCallDelta, ToolCallStart


def test_a_long_answer_is_written_as_it_comes() -> None:
    """An event does not take up again what came before it: tens of thousands are a moment's work."""
    events = ItemEvents("r_")
    written = [event for _ in range(50_000) for event in events.feed([TextDelta("a")])]
    assert {event["item_id"] for event in written if "item_id" in event} == {"msg_r_0"}
    *_, done = events.finish("completed")
    assert done["item"]["content"][0]["text"] == "a" * 50_000


def test_each_item_has_its_own_id() -> None:
    """Its events name it."""
    events = ItemEvents("r_")
    written = events.feed([TextDelta("a"), ToolCallStart("c", "x"), ToolCallDelta("{}"), ToolCallStart("d", "x")])
    ids = [event.get("item_id") or event["item"]["id"] for event in [*written, *events.finish("completed")]]
    assert list(dict.fromkeys(ids)) == ["msg_r_0", "fc_r_1", "fc_r_2"]
