"""The output of a response: items of it, and the events by which they grow."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from twinfer.gateway.answers import Answer, Ending
from twinfer.gateway.text.content import (
    Block,
    Delta,
    ReasoningBlock,
    ReasoningDelta,
    TextBlock,
    TextDelta,
    ToolCallBlock,
    ToolCallStart,
    join_deltas,
)

Event = dict[str, Any]
Item = dict[str, Any]
INCOMPLETE = {Ending.MAX_TOKENS: "max_output_tokens", Ending.CONTEXT_FULL: "max_output_tokens"}
"""Endings that leave a response incomplete, by the reason it gives."""


def items(answer: Answer, stem: str) -> list[Item]:
    """All output items of a whole answer; ``stem`` tells its ids from other responses'."""
    status = "incomplete" if answer.ending in INCOMPLETE else "completed"
    blocks = answer.blocks
    last = len(blocks) - 1
    return [
        _item(block, f"{stem}{index}", status if index == last else "completed") for index, block in enumerate(blocks)
    ]


def _item(block: Block, stem: str, status: str) -> Item:
    match block:
        case TextBlock(text):
            return {
                "type": "message",
                "id": f"msg_{stem}",
                "status": status,
                "role": "assistant",
                "content": [_text_part(text)],
            }
        case ReasoningBlock(text):
            content = [{"type": "reasoning_text", "text": text}]
            return {"type": "reasoning", "id": f"rs_{stem}", "summary": [], "content": content, "status": status}
        case ToolCallBlock(call_id, name, json):
            return {
                "type": "function_call",
                "id": f"fc_{stem}",
                "call_id": call_id,
                "name": name,
                "arguments": json,
                "status": status,
            }


def _text_part(text: str) -> dict[str, Any]:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


@dataclass(slots=True)
class ItemEvents:
    """One answer's items while they are written. An item begins where a block does."""

    stem: str
    _index: int = -1
    _id: str = ""
    _deltas: list[Delta] = field(default_factory=list)

    def feed(self, deltas: Sequence[Delta]) -> list[Event]:
        """What is new."""
        return [event for delta in deltas for event in self._feed(delta)]

    def finish(self, status: str) -> list[Event]:
        """The last item's end."""
        return self._done(status) if self._deltas else []

    def _feed(self, delta: Delta) -> list[Event]:
        events: list[Event] = []
        if not self._deltas or len(join_deltas((self._deltas[-1], delta))) > 1:
            events += self._done("completed") if self._deltas else []
            self._index += 1
            self._deltas = [delta]
            events += self._added()
        else:
            self._deltas.append(delta)
        match delta:
            case TextDelta(text):
                events.append(self._place("response.output_text.delta", delta=text, logprobs=[]))
            case ReasoningDelta(text):
                events.append(self._place("response.reasoning_text.delta", delta=text))
            case ToolCallStart():
                pass
            case _:
                events.append(self._on("response.function_call_arguments.delta", delta=delta.json))
        return events

    def _added(self) -> list[Event]:
        item = self._item("in_progress")
        self._id = item["id"]
        match self._block():
            case ToolCallBlock():
                return [self._at("response.output_item.added", item=item | {"arguments": ""})]
            case TextBlock():
                opening = self._at("response.output_item.added", item=item | {"content": []})
                return [opening, self._place("response.content_part.added", part=_text_part(""))]
            case _:
                opening = self._at("response.output_item.added", item=item | {"content": []})
                part = {"type": "reasoning_text", "text": ""}
                return [opening, self._place("response.content_part.added", part=part)]

    def _done(self, status: str) -> list[Event]:
        item = self._item(status)
        end = self._at("response.output_item.done", item=item)
        match self._block():
            case ToolCallBlock(_, name, json):
                return [self._on("response.function_call_arguments.done", name=name, arguments=json), end]
            case TextBlock(text):
                said = self._place("response.output_text.done", text=text, logprobs=[])
            case ReasoningBlock(text):
                said = self._place("response.reasoning_text.done", text=text)
        return [said, self._place("response.content_part.done", part=item["content"][0]), end]

    def _block(self) -> Block:
        return join_deltas(self._deltas)[0]

    def _item(self, status: str) -> Item:
        return _item(self._block(), f"{self.stem}{self._index}", status)

    def _at(self, kind: str, **members: Any) -> Event:
        return {"type": kind, "output_index": self._index, **members}

    def _on(self, kind: str, **members: Any) -> Event:
        return self._at(kind, item_id=self._id, **members)

    def _place(self, kind: str, **members: Any) -> Event:
        return self._on(kind, content_index=0, **members)
