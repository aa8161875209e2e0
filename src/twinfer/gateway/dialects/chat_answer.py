"""An answer in the words of Chat Completions: a message, deltas of a stream, why it ended, usage.

Native bodies that follow Chat Completions share them.
"""

from collections.abc import Sequence
from typing import Any, TypeAlias

from twinfer.gateway.answers import Answer, Ending
from twinfer.gateway.text.content import (
    Delta,
    ReasoningBlock,
    ReasoningDelta,
    TextBlock,
    TextDelta,
    ToolCallBlock,
    ToolCallDelta,
    ToolCallStart,
)

FINISH_REASONS = {
    Ending.END_OF_TURN: "stop",
    Ending.MAX_TOKENS: "length",
    Ending.STOP_STRING: "stop",
    Ending.CONTEXT_FULL: "length",
    Ending.TOOL_CALLS: "tool_calls",
    Ending.BROKEN_CALL: "stop",
}
Chunk: TypeAlias = dict[str, Any]

_THINKING = ("<reasoning>", "</reasoning>")
"""Around thoughts that stand in the text, as gpt-oss has them in native bodies."""


def finish_reason(answer: Answer) -> str:
    """Why a complete answer ended."""
    assert answer.ending is not None
    return FINISH_REASONS[answer.ending]


def message(answer: Answer, *, thinks_aloud: bool = False) -> Chunk:
    """The assistant's turn; ``content`` is null where there are calls only."""
    said: list[str] = []
    thought: list[str] = []
    calls: list[Chunk] = []
    for block in answer.blocks:
        match block:
            case TextBlock(text):
                said.append(text)
            case ReasoningBlock(text) if thinks_aloud:
                said.append(text.join(_THINKING))
            case ReasoningBlock(text):
                thought.append(text)
            case ToolCallBlock(call_id, name, json):
                calls.append({"id": call_id, "type": "function", "function": {"name": name, "arguments": json}})
    found: Chunk = {"role": "assistant", "content": "".join(said) if said or not calls else None}
    if thought:
        found["reasoning_content"] = "".join(thought)
    return found | ({"tool_calls": calls} if calls else {})


def usage(answers: Sequence[Answer]) -> dict[str, Any]:
    """Tokens of all choices; the prompt that they share counts once."""
    prompt = len(answers[0].request.prompt)
    completion = sum(answer.num_tokens for answer in answers)
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": answers[0].num_cached},
        "completion_tokens_details": {"reasoning_tokens": sum(answer.num_reasoning_tokens for answer in answers)},
    }


class ChoiceWriter:
    """One choice's deltas, as they go into chunks."""

    def __init__(self, *, thinks_aloud: bool = False) -> None:
        self._thinks_aloud = thinks_aloud
        self._thinking = False
        self._num_calls = 0

    def write(self, deltas: Sequence[Delta]) -> list[Chunk]:
        """New content; text that arrived together shares a chunk."""
        if len(deltas) > 1 and all(type(delta) is TextDelta for delta in deltas):
            deltas = [TextDelta("".join(delta.text for delta in deltas if isinstance(delta, TextDelta)))]
        return [self._write(delta) for delta in deltas]

    def finish(self) -> Chunk:
        """Ends thoughts that were cut off."""
        mark = self._mark(thinking=False)
        return {"content": mark} if mark else {}

    def _write(self, delta: Delta) -> Chunk:
        match delta:
            case ReasoningDelta(text) if self._thinks_aloud:
                return {"content": self._mark(thinking=True) + text}
            case ReasoningDelta(text):
                return {"reasoning_content": text}
            case TextDelta(text):
                return {"content": self._mark(thinking=False) + text}
            case ToolCallStart(call_id, name):
                self._num_calls += 1
                function = {"name": name, "arguments": ""}
                call = {"index": self._num_calls - 1, "id": call_id, "type": "function", "function": function}
            case ToolCallDelta(json):
                call = {"index": self._num_calls - 1, "function": {"arguments": json}}
        mark = self._mark(thinking=False)
        return {"tool_calls": [call]} | ({"content": mark} if mark else {})

    def _mark(self, thinking: bool) -> str:
        """What goes around thoughts that stand in the text."""
        if thinking == self._thinking or not self._thinks_aloud:
            return ""
        self._thinking = thinking
        return _THINKING[0 if thinking else 1]
