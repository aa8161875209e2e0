"""The body of OpenAI's Responses, as far as a server without memory can answer it."""

from dataclasses import dataclass
from typing import Any

from twinfer.gateway.dialects.chat_messages import (
    ROLES,
    named_choice,
    read_arguments,
    read_function,
    read_text,
    unsupported,
)
from twinfer.gateway.dialects.chat_request import read_options, read_tier
from twinfer.gateway.dialects.reader import Reader, read_json
from twinfer.gateway.prepare import Options
from twinfer.gateway.text.conversation import (
    Calling,
    Conversation,
    Message,
    Part,
    Reasoning,
    Text,
    Tool,
    ToolCall,
    ToolResult,
    say,
)

_TEXT = ("text", "input_text", "output_text")


@dataclass(frozen=True, slots=True)
class Ask:
    """A request as OpenAI's clients write it.

    Attributes:
        echoed: members of the body that the response repeats.
    """

    model: str
    conversation: Conversation
    options: Options
    stream: bool
    echoed: dict[str, Any]


def read_ask(body: bytes) -> Ask:
    """Read a request.

    Raises:
        InvalidRequest: it is malformed, contradicts itself, or needs what this server does not do.
    """
    fields = read_json(body)
    _refuse_unsupported(fields)
    model = fields.need("model").string(at_least=1, at_most=2048)
    instructions = fields.get("instructions")
    system = () if instructions is None else (say("system", instructions.string()),)
    tools = _read_tools(fields)
    calling, tool = _read_choice(fields.get("tool_choice"), {tool.name for tool in tools})
    parallel = (flag := fields.get("parallel_tool_calls")) is None or flag.boolean()
    messages = _one_turn((*system, *_read_input(fields.need("input"))))
    arguments = {}
    if (reasoning := fields.get("reasoning")) is not None and (effort := reasoning.get("effort")) is not None:
        arguments["reasoning_effort"] = effort.string(at_most=64)
    conversation = Conversation(messages, tools, calling, tool, parallel, arguments)
    most = fields.get("max_output_tokens")
    options = read_options(fields, None, None if most is None else most.integer(at_least=1, at_most=2**31 - 1))
    read_tier(fields)
    stream = (flag := fields.get("stream")) is not None and flag.boolean()
    return Ask(model, conversation, options, stream, _echoed(fields, parallel))


def _echoed(fields: Reader, parallel: bool) -> dict[str, Any]:
    """The response tells how it was asked; what was not said, by its default."""
    body = fields.mapping()
    defaults: dict[str, Any] = {
        "instructions": None,
        "max_output_tokens": None,
        "metadata": {},
        "temperature": None,
        "top_p": None,
        "tool_choice": "auto",
        "tools": [],
        "text": {"format": {"type": "text"}},
        "truncation": "disabled",
    }
    said = {name: body[name] for name in defaults if body.get(name) is not None}
    return defaults | said | {"parallel_tool_calls": parallel, "previous_response_id": None, "store": False}


def _read_input(field: Reader) -> tuple[Message, ...]:
    if isinstance(field.value, str):
        return (say("user", field.string(at_least=1)),)
    return tuple(_read_item(item) for item in field.items(at_least=1))


def _read_item(item: Reader) -> Message:
    kind = "message" if (named := item.get("type")) is None else named.string()
    if kind == "message":
        role = ROLES[item.need("role").one_of([role for role in ROLES if role != "tool"])]
        return Message(role, read_text(item.need("content"), _TEXT))
    if kind == "function_call":
        name = item.need("name").string(at_least=1)
        call = ToolCall(item.need("call_id").string(at_least=1), name, read_arguments(item.need("arguments")))
        return Message("assistant", (call,))
    if kind == "function_call_output":
        output = "\n".join(part.text for part in read_text(item.need("output"), _TEXT))
        return Message("tool", (ToolResult(item.need("call_id").string(at_least=1), output),))
    if kind == "reasoning":
        parts = item.get("content") or item.get("summary")
        texts = [] if parts is None else [part.need("text").string() for part in parts.items()]
        return Message("assistant", (Reasoning("\n".join(texts)),))
    raise unsupported(f"input items of type {kind[:100]}", f"{item.path}.type")


def _one_turn(messages: tuple[Message, ...]) -> tuple[Message, ...]:
    """Items of the assistant that follow each other are one turn: thoughts, text and calls."""
    turns: list[list[Part]] = []
    roles: list[str] = []
    for message in messages:
        if roles and roles[-1] == message.role == "assistant":
            turns[-1] += message.parts
        else:
            turns.append(list(message.parts))
            roles.append(message.role)
    return tuple(Message(role, tuple(parts) or (Text(""),)) for role, parts in zip(roles, turns, strict=True))


def _read_tools(fields: Reader) -> tuple[Tool, ...]:
    listed = fields.get("tools")
    tools = []
    for item in [] if listed is None else listed.items(at_most=1024):
        kind = item.need("type")
        if kind.string() != "function":
            raise unsupported(f"tools of type {kind.string()[:100]}", kind.path)
        tools.append(read_function(item))
    return tuple(tools)


def _read_choice(choice: Reader | None, names: set[str]) -> tuple[Calling, str]:
    if choice is None:
        return Calling.AUTO, ""
    if isinstance(choice.value, str):
        words = {"none": Calling.NONE, "auto": Calling.AUTO, "required": Calling.ANY}
        return words[choice.one_of(tuple(words))], ""
    choice.need("type").one_of(("function",))
    return named_choice(choice.need("name"), names)


def _refuse_unsupported(fields: Reader) -> None:
    if fields.get("previous_response_id") is not None:
        raise unsupported("previous_response_id", "previous_response_id", "send the whole conversation as input")
    if fields.get("conversation") is not None:
        raise unsupported("conversation", "conversation", "send the whole conversation as input")
    if (background := fields.get("background")) is not None and background.boolean():
        raise unsupported("background", background.path)
    text = fields.get("text")
    wanted = None if text is None else text.get("format")
    if wanted is not None and wanted.need("type").string() != "text":
        raise unsupported("text.format", wanted.path)
