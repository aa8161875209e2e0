"""The content unions of Converse: every block is of one kind, and becomes parts of a conversation or none."""

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from twinfer.core.errors import InvalidRequest
from twinfer.gateway.dialects.reader import Reader
from twinfer.gateway.text.conversation import CachePoint, Part, Reasoning, Text, ToolCall, ToolResult

TOOL_NAME = "[a-zA-Z0-9_-]{1,64}"

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
_RESULT = ("text", "json", "image", "document", "video", "searchResult")
_REASONING = ("reasoningText", "redactedContent")
CACHE_TTLS_S = {"5m": 300.0, "1h": 3600.0}
_CALL_ID = "[a-zA-Z0-9_.:-]{1,64}"


@dataclass(frozen=True, slots=True)
class Block:
    """One block of a turn or of the system prompt.

    Attributes:
        path: its place in the body.
        kind: the union's member that is set.
        part: what it says; ``None`` for one that is not read.
    """

    path: str
    kind: str
    part: Part | None = None


def read_content_block(item: Reader) -> Block:
    """A block of a turn; kinds that this server cannot read are told apart but not looked into."""
    kind, member = one_member(item, _CONTENT)
    return Block(item.path, *_read(kind, member))


def read_system_block(item: Reader) -> Block:
    """A block of the system prompt."""
    kind, member = one_member(item, _SYSTEM)
    if kind == "text":
        member.string(at_least=1)
    return Block(item.path, *_read(kind, member))


def one_member(item: Reader, kinds: Sequence[str]) -> tuple[str, Reader]:
    """The member of a union. Members of later versions of the API are not counted."""
    present = [(name, member) for name, member in item.members() if name in kinds]
    if len(present) != 1:
        raise item.violation(f"Member must have exactly one of [{', '.join(kinds)}]")
    return present[0]


def read_cache_point(point: Reader) -> CachePoint:
    """How long what comes before it is to be kept."""
    point.need("type").one_of(("default",))
    ttl = point.get("ttl")
    return CachePoint(CACHE_TTLS_S["5m" if ttl is None else ttl.one_of(tuple(CACHE_TTLS_S))])


def unsupported(name: str, path: str) -> InvalidRequest:
    """What this server has no model for."""
    return InvalidRequest(f"This model doesn't support the {name} field. Remove {name} and try again.", where=path)


def _read(kind: str, member: Reader) -> tuple[str, Part | None]:
    """The kind, which is ``image`` for a guarded image, and the part."""
    if kind == "text":
        return kind, Text(member.string())
    if kind == "guardContent":
        guarded, content = one_member(member, ("text", "image"))
        return guarded, Text(content.need("text").string()) if guarded == "text" else None
    if kind == "toolUse":
        return kind, _tool_call(member)
    if kind == "toolResult":
        return kind, _tool_result(member)
    if kind == "reasoningContent":
        said, thought = one_member(member, _REASONING)
        return kind, Reasoning(thought.need("text").string()) if said == "reasoningText" else None
    if kind == "cachePoint":
        return kind, read_cache_point(member)
    return kind, None


def _tool_call(call: Reader) -> ToolCall:
    call_id = call.need("toolUseId").string(pattern=_CALL_ID)
    name = call.need("name").string(pattern=TOOL_NAME)
    return ToolCall(call_id, name, call.need("input").mapping())


def _tool_result(result: Reader) -> ToolResult:
    call_id = result.need("toolUseId").string(pattern=_CALL_ID)
    texts = [_result_text(item) for item in result.need("content").items()]
    status = result.get("status")
    is_error = status is not None and status.one_of(("success", "error")) == "error"
    if is_error and not texts:
        raise InvalidRequest(
            f"The content field at {result.path}.content cannot be empty when status value is error. Add a "
            "ToolResultContentBlock object to the content field and try again.",
            where=f"{result.path}.content",
        )
    return ToolResult(call_id, "\n".join(texts), is_error)


def _result_text(item: Reader) -> str:
    kind, member = one_member(item, _RESULT)
    if kind == "json":
        return msgspec.json.encode(member.value).decode()
    if kind != "text":
        raise unsupported(kind, item.path)
    return member.string()
