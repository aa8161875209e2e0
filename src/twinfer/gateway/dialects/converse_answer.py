"""An answer as Converse's shapes have it: blocks of a message, events of a stream, usage.

Converse and Amazon Nova's native bodies share them.
"""

from collections.abc import Sequence
from typing import Any

import msgspec

from twinfer.gateway.answers import Answer, Ending
from twinfer.gateway.dialects.converse_blocks import CACHE_TTLS_S
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
)

CALL_PREFIX = "tooluse_"
STOP_REASONS = {
    Ending.END_OF_TURN: "end_turn",
    Ending.MAX_TOKENS: "max_tokens",
    Ending.STOP_STRING: "stop_sequence",
    Ending.CONTEXT_FULL: "model_context_window_exceeded",
    Ending.TOOL_CALLS: "tool_use",
    Ending.BROKEN_CALL: "malformed_tool_use",
}

_TTLS = {ttl_s: name for name, ttl_s in CACHE_TTLS_S.items()}

Event = tuple[str, dict[str, Any]]
"""An event's type and payload."""


def message(answer: Answer) -> dict[str, Any]:
    """The assistant's turn. It has at least one block, because clients read the first without looking."""
    content = [_block(block) for block in answer.blocks] or [{"text": ""}]
    return {"role": "assistant", "content": content}


def usage(answer: Answer) -> dict[str, Any]:
    """Tokens: prompt tokens read from a cache or written to it are not input tokens, but count in the total."""
    used = answer.tokens_used
    told: dict[str, Any] = {
        "inputTokens": used.input,
        "outputTokens": used.output,
        "totalTokens": used.prompt + used.output,
        "cacheReadInputTokens": used.cache_read,
        "cacheWriteInputTokens": used.cache_write,
    }
    if answer.request.pins:
        longest_first = sorted(answer.cache_writes.items(), reverse=True)
        told["cacheDetails"] = [{"ttl": _TTLS[ttl_s], "inputTokens": count} for ttl_s, count in longest_first]
    return told


def stop_reason(answer: Answer) -> str:
    """Why a complete answer ended."""
    assert answer.ending is not None
    return STOP_REASONS[answer.ending]


def _block(block: Block) -> dict[str, Any]:
    match block:
        case TextBlock(text):
            return {"text": text}
        case ReasoningBlock(text):
            return {"reasoningContent": {"reasoningText": {"text": text}}}
        case ToolCallBlock(call_id, name, json):
            return {"toolUse": {"toolUseId": call_id, "name": name, "input": _object(json)}}


def _object(json: str) -> dict[str, Any]:
    """A call's arguments; none where generation was cut off inside them."""
    try:
        return msgspec.json.decode(json, type=dict[str, Any])
    except msgspec.DecodeError:
        return {}


class ContentEvents:
    """The events of one message's blocks, which never interleave.

    A block begins with a delta of another kind than the last one's, and with every call. Only a call has a
    contentBlockStart: clients break on one for text or reasoning. Every block has a contentBlockStop: without it
    clients drop the block.
    """

    def __init__(self) -> None:
        self._index = -1
        self._kind: type[Delta] | None = None

    def feed(self, deltas: Sequence[Delta]) -> list[Event]:
        """What is new."""
        return [event for delta in _joined(deltas) for event in self._events(delta)]

    def finish(self) -> list[Event]:
        """The last block's end. A message without any content gets an empty text."""
        opening = [] if self._kind is not None else self.feed([TextDelta("")])
        return [*opening, self._stop()]

    def _events(self, delta: Delta) -> list[Event]:
        match delta:
            case TextDelta(text):
                return [*self._begin(TextDelta), self._delta({"text": text})]
            case ReasoningDelta(text):
                return [*self._begin(ReasoningDelta), self._delta({"reasoningContent": {"text": text}})]
            case ToolCallStart(call_id, name):
                start = {"toolUse": {"toolUseId": call_id, "name": name}}
                begun = self._begin(ToolCallStart)
                opening = ("contentBlockStart", {"contentBlockIndex": self._index, "start": start})
                return [*begun, opening, self._delta({"toolUse": {"input": ""}})]
            case _:
                return [self._delta({"toolUse": {"input": delta.json}})]

    def _begin(self, kind: type[Delta]) -> list[Event]:
        """Go on with the block, or end it and count one further."""
        if kind is self._kind and kind is not ToolCallStart:
            return []
        ended = [] if self._kind is None else [self._stop()]
        self._index += 1
        self._kind = kind
        return ended

    def _delta(self, delta: dict[str, Any]) -> Event:
        return "contentBlockDelta", {"contentBlockIndex": self._index, "delta": delta}

    def _stop(self) -> Event:
        return "contentBlockStop", {"contentBlockIndex": self._index}


def _joined(deltas: Sequence[Delta]) -> list[Delta]:
    """What arrived together shares an event, where it is more of the same."""
    joined: list[Delta] = []
    for delta in deltas:
        match joined[-1:], delta:
            case [TextDelta(before)], TextDelta(text):
                joined[-1] = TextDelta(before + text)
            case [ReasoningDelta(before)], ReasoningDelta(text):
                joined[-1] = ReasoningDelta(before + text)
            case [ToolCallDelta(before)], ToolCallDelta(json):
                joined[-1] = ToolCallDelta(before + json)
            case _:
                joined.append(delta)
    return joined
