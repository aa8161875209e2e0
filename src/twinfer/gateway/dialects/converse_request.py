"""The body of Converse and ConverseStream: its shape first, then what it means."""

import re
from dataclasses import dataclass
from typing import Any, NamedTuple

from twinfer.core.errors import InvalidRequest
from twinfer.gateway.dialects.options import EXTRA_NAMES, read_extras, read_stop_strings, read_template_arguments
from twinfer.gateway.dialects.reader import Reader, read_json
from twinfer.gateway.prepare import Options
from twinfer.gateway.text.conversation import Conversation, Message, Text, merge_turns

_CONTENT = (
    "text",
    "image",
    "document",
    "video",
    "audio",
    "toolUse",
    "toolResult",
    "guardContent",
    "cachePoint",
    "reasoningContent",
    "citationsContent",
    "searchResult",
    "toolAddition",
    "toolRemoval",
)
_SYSTEM = ("text", "guardContent", "cachePoint")
_SILENT = ("cachePoint", "reasoningContent")
"""Blocks that are no part of the prompt: prefixes are cached unasked, and earlier reasoning is not read again."""
_TOOLS = ("toolUse", "toolResult")
_METADATA = r"[a-zA-Z0-9\s:_@$#=/+,\-.]*"
_POINTER = re.compile(r"(/([^~/]|~[01])*)+")


@dataclass(frozen=True, slots=True)
class Converse:
    """A request as Converse's clients write it.

    Attributes:
        response_fields: JSON pointers to native fields the client wants back.
        names_latency: whether it chose a latency mode, and so is told which it got.
        names_tier: the same for the service tier.
    """

    conversation: Conversation
    options: Options
    response_fields: tuple[str, ...]
    names_latency: bool
    names_tier: bool


class _Block(NamedTuple):
    path: str
    kind: str
    text: str


class _Turn(NamedTuple):
    path: str
    role: str
    blocks: list[_Block]


def read_converse(body: bytes) -> Converse:
    """Read a request.

    Raises:
        InvalidRequest: it is malformed, contradicts itself, or needs what this server does not do.
    """
    fields = read_json(body)
    turns = [_read_turn(message) for message in fields.need("messages").items()]
    system = [_read_block(item, _SYSTEM) for item in _optional_items(fields, "system")]
    options = _read_options(fields)
    response_fields = _read_response_fields(fields)
    names_latency, names_tier = _read_service(fields)
    _check_metadata(fields)
    _check_turns(turns, has_tools=_has_tools(fields))
    _check_system(system)
    _refuse_unsupported(fields)
    return Converse(_conversation(fields, system, turns), options, response_fields, names_latency, names_tier)


def _optional_items(fields: Reader, name: str, at_most: int = 2**31) -> list[Reader]:
    found = fields.get(name)
    return [] if found is None else found.items(at_most=at_most)


def _read_turn(message: Reader) -> _Turn:
    role = message.need("role").one_of(("user", "assistant", "system"))
    return _Turn(message.path, role, [_read_block(item, _CONTENT) for item in message.need("content").items()])


def _read_block(item: Reader, kinds: tuple[str, ...]) -> _Block:
    """One member of a content union. Members of later versions of the API are not counted."""
    present = [(name, member) for name, member in item.members() if name in kinds]
    if len(present) != 1:
        raise item.violation(f"Member must have exactly one of [{', '.join(kinds)}]")
    kind, member = present[0]
    if kind == "text":
        return _Block(item.path, kind, member.string())
    if kind == "guardContent":
        guarded = member.get("text")
        return _Block(item.path, "text", guarded.need("text").string()) if guarded else _Block(item.path, "image", "")
    if kind == "cachePoint":
        member.need("type").one_of(("default",))
        if (ttl := member.get("ttl")) is not None:
            ttl.one_of(("5m", "1h"))
    return _Block(item.path, kind, "")


def _read_options(fields: Reader) -> Options:
    chosen: dict[str, Any] = {}
    if (extras := fields.get("additionalModelRequestFields")) is not None:
        for name, _ in extras.members():
            if name not in EXTRA_NAMES:
                raise InvalidRequest(
                    f"Malformed input request: extraneous key [{name[:100]}] is not permitted, please reformat your "
                    "input and try again.",
                    where=extras.path,
                )
        chosen |= read_extras(extras)
    if (config := fields.get("inferenceConfig")) is not None:
        if (max_tokens := config.get("maxTokens")) is not None:
            chosen["max_tokens"] = max_tokens.integer(at_least=1, at_most=2**31 - 1)
        if (temperature := config.get("temperature")) is not None:
            chosen["temperature"] = temperature.number(0, 1)
        if (top_p := config.get("topP")) is not None:
            chosen["top_p"] = top_p.number(0, 1)
        if (stop := config.get("stopSequences")) is not None:
            chosen["stop"] = read_stop_strings(stop, at_most=2500)
    return Options(**chosen)


def _read_response_fields(fields: Reader) -> tuple[str, ...]:
    pointers = []
    for item in _optional_items(fields, "additionalModelResponseFieldPaths", at_most=10):
        pointer = item.string(at_least=1, at_most=256)
        if not _POINTER.fullmatch(pointer):
            raise item.violation("Member must be a JSON pointer, such as /stop_sequence")
        pointers.append(pointer)
    return tuple(pointers)


def _read_service(fields: Reader) -> tuple[bool, bool]:
    """Whether latency mode and service tier are named. There is one of each here, so all are served alike."""
    latency = tier = None
    if (performance := fields.get("performanceConfig")) is not None:
        latency = performance.get("latency")
        if latency is not None:
            latency.one_of(("standard", "optimized"))
    if (service := fields.get("serviceTier")) is not None:
        tier = service.need("type")
        tier.one_of(("priority", "default", "flex", "reserved"))
    return latency is not None, tier is not None


def _check_metadata(fields: Reader) -> None:
    metadata = fields.get("requestMetadata")
    if metadata is None:
        return
    members = list(metadata.members())
    if len(members) > 16:
        raise metadata.violation("Member must have length less than or equal to 16")
    for name, member in members:
        Reader(name, metadata.path).string(at_least=1, at_most=256, pattern=_METADATA)
        member.string(at_most=256, pattern=_METADATA)


def _has_tools(fields: Reader) -> bool:
    config = fields.get("toolConfig")
    if config is not None:
        config.need("tools").items(at_least=1)
    return config is not None


def _check_turns(turns: list[_Turn], has_tools: bool) -> None:
    if not turns or turns[0].role != "user":
        raise InvalidRequest(
            "A conversation must start with a user message. Try again with a conversation that starts with a user "
            "message.",
            where="messages",
        )
    for turn in turns:
        if not turn.blocks:
            raise InvalidRequest(
                f"The content field in the Message object at {turn.path} is empty. Add a ContentBlock object to the "
                "content field and try again.",
                where=turn.path,
            )
        for block in turn.blocks:
            _check_block(block, has_tools)


def _check_block(block: _Block, has_tools: bool) -> None:
    if block.kind == "text":
        if not block.text.strip():
            raise InvalidRequest(
                f"The text field in the ContentBlock object at {block.path} is blank. Add text to the text field, and "
                "try again.",
                where=block.path,
            )
    elif block.kind in _TOOLS and not has_tools:
        raise InvalidRequest(
            "The toolConfig field must be defined when using toolUse and toolResult content blocks.", where=block.path
        )
    elif block.kind not in _SILENT:
        raise _unsupported(block.kind, block.path)


def _check_system(system: list[_Block]) -> None:
    for block in system:
        if block.kind == "text" and not block.text:
            raise Reader(block.text, f"{block.path}.text").violation(
                "Member must have length greater than or equal to 1"
            )
        if block.kind == "image":
            raise _unsupported("image", block.path)


def _refuse_unsupported(fields: Reader) -> None:
    if fields.get("toolConfig") is not None:
        raise _unsupported("toolConfig", "toolConfig")
    if (output := fields.get("outputConfig")) is not None and output.get("textFormat") is not None:
        raise _unsupported("textFormat", "outputConfig.textFormat")
    if (guardrail := fields.get("guardrailConfig")) is not None and guardrail.get("guardrailIdentifier") is not None:
        raise InvalidRequest(
            "The guardrail identifier or version provided in the request does not exist; remove guardrailConfig.",
            where="guardrailConfig",
        )


def _unsupported(name: str, path: str) -> InvalidRequest:
    return InvalidRequest(f"This model doesn't support the {name} field. Remove {name} and try again.", where=path)


def _conversation(fields: Reader, system: list[_Block], turns: list[_Turn]) -> Conversation:
    """System text first, then the turns, neighbours of one role merged."""
    spoken = [Message(turn.role, _text(turn.blocks)) for turn in turns]
    messages = merge_turns([Message("system", _text(system)), *spoken] if _text(system) else spoken)
    extras = fields.get("additionalModelRequestFields")
    return Conversation(messages, arguments={} if extras is None else read_template_arguments(extras))


def _text(blocks: list[_Block]) -> tuple[Text, ...]:
    return tuple(Text(block.text) for block in blocks if block.kind == "text")
