"""A conversation in the form templates take, which is that of transformers' ``apply_chat_template``."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from twinfer.gateway.text.conversation import Conversation, Message, Reasoning, Tool, ToolCall, ToolResult


@dataclass(frozen=True, slots=True)
class TurnStyle:
    """What templates differ in.

    Attributes:
        thoughts: the key under which one looks for what the assistant thought.
        one_call: it shows one call in a turn only, so that several become turns of their own.
    """

    thoughts: str
    one_call: bool


def style_of(source: str) -> TurnStyle:
    """What a template's source gives away."""
    thoughts = "thinking" if "message.thinking" in source else "reasoning_content"
    return TurnStyle(thoughts, "tool_calls[0]" in source)


def make_turns(conversation: Conversation, style: TurnStyle, template_id: Callable[[str], str]) -> list[dict[str, Any]]:
    """One dict for each turn; ``template_id`` makes ids of calls as the template takes them."""
    messages = conversation.messages
    names = {part.id: part.name for message in messages for part in message.parts if isinstance(part, ToolCall)}
    shown = _one_by_one(messages) if style.one_call else messages
    return [_turn(message, names, style, template_id) for message in shown]


def make_functions(tools: Sequence[Tool]) -> list[dict[str, Any]]:
    """One dict for each tool."""
    return [
        {
            "type": "function",
            "function": {"name": tool.name, "description": tool.description, "parameters": dict(tool.parameters)},
        }
        for tool in tools
    ]


def _one_by_one(messages: Sequence[Message]) -> Iterator[Message]:
    """Turns of several calls taken apart: each call is followed by its result."""
    results = {part.call_id: message for message in messages for part in message.parts if isinstance(part, ToolResult)}
    moved: set[str] = set()
    for message in messages:
        calls = [part for part in message.parts if isinstance(part, ToolCall)]
        if len(calls) < 2:
            if not any(isinstance(part, ToolResult) and part.call_id in moved for part in message.parts):
                yield message
            continue
        others = tuple(part for part in message.parts if not isinstance(part, ToolCall))
        for number, call in enumerate(calls):
            yield Message(message.role, (*(() if number else others), call))
            if call.id in results:
                moved.add(call.id)
                yield results[call.id]


def _turn(
    message: Message, names: Mapping[str, str], style: TurnStyle, template_id: Callable[[str], str]
) -> dict[str, Any]:
    """Keys without a value are left out, because templates ask whether they are there."""
    turn: dict[str, Any] = {"role": message.role, "content": message.text}
    calls = [part for part in message.parts if isinstance(part, ToolCall)]
    if calls:
        turn["tool_calls"] = [
            {
                "type": "function",
                "id": template_id(call.id),
                "function": {"name": call.name, "arguments": dict(call.arguments)},
            }
            for call in calls
        ]
    thoughts = "\n".join(part.text for part in message.parts if isinstance(part, Reasoning))
    if thoughts and not (style.thoughts == "thinking" and calls and message.text):
        turn[style.thoughts] = thoughts  # gpt-oss' template refuses both text and thoughts beside a call
    for part in message.parts:
        if isinstance(part, ToolResult):
            name = names.get(part.call_id, "")
            turn |= {"content": part.text, "tool_call_id": template_id(part.call_id), "name": name}
    return turn
