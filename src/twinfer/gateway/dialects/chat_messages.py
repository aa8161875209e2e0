"""The messages and tools of Chat Completions."""

import json
from collections.abc import Collection
from typing import Any, NamedTuple

import msgspec

from twinfer.core.errors import InvalidRequest
from twinfer.gateway.dialects.output_schema import check_tool
from twinfer.gateway.dialects.reader import Reader
from twinfer.gateway.text.conversation import Calling, Message, Part, Reasoning, Text, Tool, ToolCall, ToolResult

ROLES = {"developer": "system", "system": "system", "user": "user", "assistant": "assistant", "tool": "tool"}
TOOL_NAME = r"[a-zA-Z0-9_-]{1,64}"


class Offer(NamedTuple):
    """The tools that may be called, and how; see ``Conversation``."""

    tools: tuple[Tool, ...] = ()
    calling: Calling = Calling.AUTO
    tool: str = ""
    parallel: bool = True


def read_messages(fields: Reader) -> tuple[Message, ...]:
    """The conversation so far.

    Raises:
        InvalidRequest: a message is malformed, or a tool's answer belongs to no call.
    """
    messages = tuple(_read_message(message) for message in fields.need("messages").items(at_least=1))
    called: set[str] = set()
    for index, message in enumerate(messages):
        called.update(part.id for part in message.parts if isinstance(part, ToolCall))
        for part in message.parts:
            if isinstance(part, ToolResult) and part.call_id not in called:
                raise InvalidRequest(
                    f"messages.{index} answers the tool call {part.call_id}, which no message before it makes; send "
                    "the assistant's message with its tool_calls too.",
                    where=f"messages.{index}.tool_call_id",
                )
    return messages


def read_offer(fields: Reader, *, flat: bool = False) -> Offer:
    """``tools``, ``tool_choice`` and ``parallel_tool_calls``.

    Args:
        flat: a tool is the function itself, as in Responses, rather than an object that has it as a member.

    Raises:
        InvalidRequest: they are malformed, or contradict each other.
    """
    for name in ("functions", "function_call"):
        if (old := fields.get(name)) is not None and old.value not in ([], "none", "auto"):
            raise unsupported(name, name, "send tools instead")
    listed = fields.get("tools")
    tools = {} if listed is None else _read_tools(listed, flat)
    calling, tool = _read_choice(fields.get("tool_choice"), tools)
    if calling is Calling.ANY and not tools:
        raise InvalidRequest("tool_choice asks for a call, but there are no tools; send some.", where="tool_choice")
    parallel = fields.get("parallel_tool_calls")
    return Offer(tuple(tools.values()), calling, tool, parallel is None or parallel.boolean())


def unsupported(name: str, path: str, advice: str = "") -> InvalidRequest:
    """What this server cannot do."""
    return InvalidRequest(f"This model does not support {name}; {advice or 'remove it and try again'}.", where=path)


def read_arguments(field: Reader) -> dict[str, Any]:
    """A call's arguments: text that is a JSON object, or nothing.

    Raises:
        InvalidRequest: it is something else.
    """
    text = field.string()
    try:
        found = msgspec.json.decode(text or "{}")
    except (msgspec.DecodeError, ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise field.violation("Member must be a JSON object written as a string")
    return found


def read_text(content: Reader, kinds: Collection[str] = ("text",)) -> tuple[Text, ...]:
    """Text, alone or in parts of these kinds."""
    if isinstance(content.value, str):
        return (Text(content.string()),)
    parts = []
    for part in content.items(at_least=1):
        kind = part.need("type")
        if kind.string() not in (*kinds, "refusal"):
            raise unsupported(f"content part type {kind.string()[:100]}", kind.path)
        parts.append(Text(part.need("refusal" if kind.value == "refusal" else "text").string()))
    return tuple(parts)


def _read_message(message: Reader) -> Message:
    role = message.need("role")
    if role.value == "function":
        raise unsupported("the role function", role.path, "send the role tool instead")
    ours = ROLES[role.one_of(tuple(ROLES))]
    if ours == "tool":
        text = "\n".join(part.text for part in read_text(message.need("content")))
        return Message(ours, (ToolResult(message.need("tool_call_id").string(at_least=1), text),))
    if ours == "assistant":
        return Message(ours, _read_assistant(message))
    return Message(ours, read_text(message.need("content")))


def _read_assistant(message: Reader) -> tuple[Part, ...]:
    if message.get("function_call") is not None:
        raise unsupported("function_call", f"{message.path}.function_call", "send tool_calls instead")
    calls = message.get("tool_calls")
    content = message.get("content") if calls is not None else message.need("content")
    thought = message.get("reasoning_content")
    parts: list[Part] = [] if thought is None else [Reasoning(thought.string())]
    if content is not None and content.value not in ("", []):
        parts += read_text(content)
    parts += [] if calls is None else [_read_call(call) for call in calls.items(at_least=1)]
    return tuple(parts) or (Text(""),)


def _read_call(call: Reader) -> ToolCall:
    kind = call.get("type")
    if kind is not None and kind.string() != "function":
        raise unsupported(f"tool calls of type {kind.string()[:100]}", kind.path)
    function = call.need("function")
    name = function.need("name").string(pattern=TOOL_NAME)
    return ToolCall(call.need("id").string(at_least=1), name, read_arguments(function.need("arguments")))


def _read_tools(listed: Reader, flat: bool) -> dict[str, Tool]:
    tools: dict[str, Tool] = {}
    for item in listed.items(at_most=1024):
        kind = item.need("type")
        if kind.string() != "function":
            raise unsupported(f"tools of type {kind.string()[:100]}", kind.path)
        tool = _read_function(item if flat else item.need("function"))
        if tool.name in tools:
            raise InvalidRequest(f"The tool {tool.name} is defined twice; rename one.", where=item.path)
        tools[tool.name] = tool
    return tools


def _read_function(function: Reader) -> Tool:
    """A function's name, description and schema."""
    name = function.need("name").string(pattern=TOOL_NAME)
    description, parameters, strict = (function.get(key) for key in ("description", "parameters", "strict"))
    tool = Tool(
        name,
        "" if description is None else description.string(),
        {"type": "object", "properties": {}} if parameters is None else parameters.mapping(),
        strict is not None and strict.boolean(),
    )
    return check_tool(tool, parameters)


def _read_choice(choice: Reader | None, names: Collection[str]) -> tuple[Calling, str]:
    if choice is None:
        return Calling.AUTO, ""
    if isinstance(choice.value, str):
        words = {"none": Calling.NONE, "auto": Calling.AUTO, "required": Calling.ANY}
        return words[choice.one_of(tuple(words))], ""
    choice.need("type").one_of(("function",))
    nested = choice.get("function")
    return _named_choice((choice if nested is None else nested).need("name"), names)


def _named_choice(field: Reader, names: Collection[str]) -> tuple[Calling, str]:
    """One tool must be called.

    Raises:
        InvalidRequest: it is not among the tools.
    """
    name = field.string()
    if name not in names:
        raise InvalidRequest(
            f"tool_choice names the tool {json.dumps(name[:100])}, which is not among the tools; add it or choose "
            "another.",
            where=field.path,
        )
    return Calling.ANY, name
