"""The body of Converse and ConverseStream: its shape first, then what it means."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any

import msgspec

from twinfer.core.errors import InvalidRequest
from twinfer.core.service import Latency, Tier
from twinfer.gateway.dialects.converse_blocks import (
    Block,
    one_member,
    read_content_block,
    read_system_block,
    unsupported,
)
from twinfer.gateway.dialects.converse_tools import Turn, check_calls, read_tool_config
from twinfer.gateway.dialects.options import (
    EXTRA_NAMES,
    read_extras,
    read_stop_strings,
    read_template_arguments,
    refuse_others,
)
from twinfer.gateway.dialects.output_schema import schema_output
from twinfer.gateway.dialects.reader import Reader, read_json
from twinfer.gateway.prepare import Options
from twinfer.gateway.text.conversation import (
    CachePoint,
    Conversation,
    JsonOutput,
    Message,
    Text,
    ToolResult,
    merge_turns,
)

LATENCIES = tuple(Latency)
TIERS = tuple(Tier)

_READ = ("text", "toolUse", "toolResult", "cachePoint", "reasoningContent")
"""Kinds of blocks that this server knows what to do with."""
_MAX_CACHE_POINTS = 4
_METADATA = r"[a-zA-Z0-9\s:_@$#=/+,\-.]*"
_POINTER = re.compile(r"(/([^~/]|~[01])*)+")


@dataclass(frozen=True, slots=True)
class Converse:
    """A request as Converse's clients write it.

    Attributes:
        response_fields: JSON pointers to native fields the client wants back.
    """

    conversation: Conversation
    options: Options
    response_fields: tuple[str, ...] = ()


def read_converse(body: bytes) -> Converse:
    """Read a request.

    Raises:
        InvalidRequest: it is malformed, contradicts itself, or needs what this server does not do.
    """
    return read_converse_fields(read_json(body))


def read_converse_fields(fields: Reader) -> Converse:
    """Read a request that is an object of a body, or the whole of one."""
    options = _read_options(fields)
    extras = fields.get("additionalModelRequestFields")
    arguments = {} if extras is None else read_template_arguments(extras)
    response_fields = _read_response_fields(fields)
    if (metadata := fields.get("requestMetadata")) is not None:
        check_metadata(metadata)
    conversation = replace(read_conversation(fields, arguments), output=_read_output(fields))
    _refuse_unsupported(fields)
    return Converse(conversation, options, response_fields)


def read_conversation(fields: Reader, arguments: Mapping[str, Any]) -> Conversation:
    """``messages``, ``system`` and ``toolConfig``: system text first, then the turns, neighbours of one role merged.

    Args:
        arguments: for the template.
    """
    turns = [_read_turn(message) for message in fields.need("messages").items()]
    system = [read_system_block(item) for item in _optional_items(fields, "system")]
    offered = read_tool_config(fields.get("toolConfig"))
    _check_turns(turns)
    said = [block for turn in turns for block in turn.blocks]
    _check_texts(said)
    _check_kinds([*system, *said])
    _check_cache_points([*offered.cache_points, *system, *said])
    merged = _merge_neighbours([Turn("system", "system", system), *turns])
    check_calls([turn for turn in merged if turn.role != "system"], has_tools=bool(offered.tools))
    messages = merge_turns(message for turn in merged for message in _messages(turn))
    kept_s = max(
        (block.part.ttl_s for block in offered.cache_points if isinstance(block.part, CachePoint)), default=0.0
    )
    return Conversation(
        messages, offered.tools, offered.calling, offered.tool, arguments=arguments, keep_tools_s=kept_s
    )


def _optional_items(fields: Reader, name: str, at_most: int = 2**31) -> list[Reader]:
    found = fields.get(name)
    return [] if found is None else found.items(at_most=at_most)


def _read_turn(message: Reader) -> Turn:
    role = message.need("role").one_of(("user", "assistant", "system"))
    return Turn(message.path, role, [read_content_block(item) for item in message.need("content").items()])


def _merge_neighbours(turns: list[Turn]) -> list[Turn]:
    """Neighbours of one role as one turn, at the first one's place."""
    groups = (list(group) for _, group in groupby(turns, key=lambda turn: turn.role))
    return [Turn(group[0].path, group[0].role, [block for turn in group for block in turn.blocks]) for group in groups]


def _messages(turn: Turn) -> list[Message]:
    """Each tool result is a message; what the user says beside them comes after. Cache points alone say nothing: they
    belong to the last result."""
    parts = [block.part for block in turn.blocks if block.part is not None]
    said = tuple(part for part in parts if not isinstance(part, ToolResult))
    results = [Message("tool", (part,)) for part in parts if isinstance(part, ToolResult)]
    if any(not isinstance(part, CachePoint) for part in said):
        return [*results, Message(turn.role, said)]
    return [*results[:-1], Message("tool", (*results[-1].parts, *said))] if results else []


def _read_options(fields: Reader) -> Options:
    chosen: dict[str, Any] = {}
    if (extras := fields.get("additionalModelRequestFields")) is not None:
        refuse_others(extras, EXTRA_NAMES)
        chosen |= read_extras(extras)
    if (config := fields.get("inferenceConfig")) is not None:
        chosen |= read_inference_config(config)
    chosen |= _read_service(fields)
    return Options(**chosen)


def read_inference_config(config: Reader) -> dict[str, Any]:
    """Arguments for ``Options``."""
    chosen: dict[str, Any] = {}
    if (max_tokens := config.get("maxTokens")) is not None:
        chosen["max_tokens"] = max_tokens.integer(at_least=1, at_most=2**31 - 1)
    if (temperature := config.get("temperature")) is not None:
        chosen["temperature"] = temperature.number(0, 1)
    if (top_p := config.get("topP")) is not None:
        chosen["top_p"] = top_p.number(0, 1)
    if (stop := config.get("stopSequences")) is not None:
        chosen["stop"] = read_stop_strings(stop, at_most=2500)
    return chosen


def _read_response_fields(fields: Reader) -> tuple[str, ...]:
    pointers = []
    for item in _optional_items(fields, "additionalModelResponseFieldPaths", at_most=10):
        pointer = item.string(at_least=1, at_most=256)
        if not _POINTER.fullmatch(pointer):
            raise item.violation("Member must be a JSON pointer, such as /stop_sequence")
        pointers.append(pointer)
    return tuple(pointers)


def _read_service(fields: Reader) -> dict[str, Any]:
    """Arguments for ``Options``: the latency mode and the service tier that are named."""
    chosen: dict[str, Any] = {}
    if (performance := fields.get("performanceConfig")) is not None:
        latency = performance.get("latency")
        if latency is not None:
            chosen["latency"] = Latency(latency.one_of(LATENCIES))
    if (service := fields.get("serviceTier")) is not None:
        chosen["tier"] = Tier(service.need("type").one_of(TIERS))
    return chosen


def check_metadata(metadata: Reader) -> None:
    """What a client wants to find in its invocation log; only its shape matters here."""
    members = list(metadata.members())
    if len(members) > 16:
        raise metadata.violation("Member must have length less than or equal to 16")
    for name, member in members:
        Reader(name, metadata.path).string(at_least=1, at_most=256, pattern=_METADATA)
        member.string(at_most=256, pattern=_METADATA)


def _check_turns(turns: list[Turn]) -> None:
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


def _check_texts(blocks: list[Block]) -> None:
    for block in blocks:
        if isinstance(block.part, Text) and not block.part.text.strip():
            raise InvalidRequest(
                f"The text field in the ContentBlock object at {block.path} is blank. Add text to the text field, and "
                "try again.",
                where=block.path,
            )


def _check_kinds(blocks: list[Block]) -> None:
    for block in blocks:
        if block.kind not in _READ:
            raise unsupported(block.kind, block.path)


def _check_cache_points(blocks: list[Block]) -> None:
    """In the order in which they take effect: tools, system, messages."""
    points = [block.path for block in blocks if block.kind == "cachePoint"]
    if len(points) > _MAX_CACHE_POINTS:
        raise InvalidRequest(
            f"A request can have {_MAX_CACHE_POINTS} cachePoint blocks at most; leave out the one at {points[-1]}.",
            where=points[-1],
        )
    times_s = [block.part.ttl_s for block in blocks if isinstance(block.part, CachePoint)]
    for path, before_s, ttl_s in zip(points[1:], times_s, times_s[1:], strict=False):
        if ttl_s > before_s:
            raise InvalidRequest(
                f"The cachePoint at {path} has a longer ttl than one before it; longer ones must come first.", path
            )


def _read_output(fields: Reader) -> JsonOutput | None:
    """What the answer must be; the schema is JSON in a string."""
    if (config := fields.get("outputConfig")) is None or (wanted := config.get("textFormat")) is None:
        return None
    wanted.need("type").one_of(("json_schema",))
    _, structure = one_member(wanted.need("structure"), ("jsonSchema",))
    for name in ("name", "description"):
        if (member := structure.get(name)) is not None:
            member.string()
    field = structure.need("schema")
    try:
        schema = msgspec.json.decode(field.string())
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise field.violation(f"Member must be JSON: {error}") from error
    return schema_output(schema, field.path)


def _refuse_unsupported(fields: Reader) -> None:
    if (guardrail := fields.get("guardrailConfig")) is not None and guardrail.get("guardrailIdentifier") is not None:
        raise InvalidRequest(
            "The guardrail identifier or version provided in the request does not exist; remove guardrailConfig.",
            where="guardrailConfig",
        )
