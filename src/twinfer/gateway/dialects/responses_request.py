"""The body of OpenAI's Responses, as far as a server without memory can answer it."""

from dataclasses import dataclass
from typing import Any

from twinfer.gateway.dialects.chat_messages import ROLES, read_arguments, read_offer, read_text, unsupported
from twinfer.gateway.dialects.chat_request import read_options
from twinfer.gateway.dialects.output_schema import read_response_format
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
    offer = read_offer(fields, flat=True)
    messages = _one_turn((*system, *_read_input(fields.need("input"))))
    arguments = {}
    if (reasoning := fields.get("reasoning")) is not None and (effort := reasoning.get("effort")) is not None:
        arguments["reasoning_effort"] = effort.string(at_most=64)
    text = fields.get("text")
    wanted = None if text is None else text.get("format")
    output = read_response_format(wanted, flat=True)
    conversation = Conversation(messages, *offer, arguments=arguments, output=output)
    most = fields.get("max_output_tokens")
    options = read_options(fields, None, None if most is None else most.integer(at_least=1, at_most=2**31 - 1))
    stream = (flag := fields.get("stream")) is not None and flag.boolean()
    return Ask(model, conversation, options, stream, _echoed(fields, conversation, wanted))


def _echoed(fields: Reader, conversation: Conversation, written: Reader | None) -> dict[str, Any]:
    """The response tells how it was asked; what was not said, by its default."""
    body = fields.mapping()
    choice: Any = {Calling.NONE: "none", Calling.AUTO: "auto", Calling.ANY: "required"}[conversation.calling]
    if conversation.tool:
        choice = {"type": "function", "name": conversation.tool}
    truncation = fields.get("truncation")
    return {
        **{name: body.get(name) for name in ("instructions", "max_output_tokens", "temperature", "top_p")},
        "metadata": _read_metadata(fields),
        "tools": [_echoed_tool(tool) for tool in conversation.tools],
        "tool_choice": choice,
        "parallel_tool_calls": conversation.parallel,
        "text": {"format": {"type": "text"} if written is None else written.value},
        "truncation": "disabled" if truncation is None else truncation.one_of(("auto", "disabled")),
        "previous_response_id": None,
        "store": False,
    }


def _echoed_tool(tool: Tool) -> dict[str, Any]:
    return {
        "type": "function",
        "name": tool.name,
        "description": tool.description or None,
        "parameters": tool.parameters,
        "strict": tool.strict,
    }


def _read_metadata(fields: Reader) -> dict[str, str]:
    """What the client wants to find with the response again; only its shape matters here."""
    if (metadata := fields.get("metadata")) is None:
        return {}
    members = {name: member.string(at_most=512) for name, member in metadata.members()}
    if len(members) > 16 or any(len(name) > 64 for name in members):
        raise metadata.violation("Member must have 16 keys or less, of 64 characters or less")
    return members


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


def _refuse_unsupported(fields: Reader) -> None:
    if fields.get("previous_response_id") is not None:
        raise unsupported("previous_response_id", "previous_response_id", "send the whole conversation as input")
    if fields.get("conversation") is not None:
        raise unsupported("conversation", "conversation", "send the whole conversation as input")
    if (background := fields.get("background")) is not None and background.boolean():
        raise unsupported("background", background.path)
    if (n := fields.get("n")) is not None and n.integer() != 1:
        raise unsupported("n", n.path, "send the request several times")
