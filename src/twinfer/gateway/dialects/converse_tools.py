"""The ``toolConfig`` of Converse, and whether a conversation's calls and results belong together."""

from collections.abc import Collection, Sequence
from typing import NamedTuple

from twinfer.core.errors import InvalidRequest
from twinfer.gateway.dialects.converse_blocks import TOOL_NAME, Block, one_member, read_cache_point, unsupported
from twinfer.gateway.dialects.output_schema import check_tool
from twinfer.gateway.dialects.reader import Reader
from twinfer.gateway.text.conversation import Calling, Tool, ToolCall, ToolResult


class Turn(NamedTuple):
    """A message of the body, or neighbours of one role."""

    path: str
    role: str
    blocks: list[Block]


class ToolConfig(NamedTuple):
    """The tools that are offered, whether one must be called (any, or the one that is named), and cache points."""

    tools: tuple[Tool, ...] = ()
    calling: Calling = Calling.AUTO
    tool: str = ""
    cache_points: tuple[Block, ...] = ()


def read_tool_config(config: Reader | None) -> ToolConfig:
    """What may be called.

    Raises:
        InvalidRequest: it is malformed, or contradicts itself.
    """
    if config is None:
        return ToolConfig()
    tools: dict[str, Tool] = {}
    points: list[Block] = []
    for item in config.need("tools").items(at_least=1):
        kind, member = one_member(item, ("toolSpec", "cachePoint", "systemTool"))
        if kind == "systemTool":
            raise unsupported("systemTool", item.path)
        if kind == "cachePoint":
            points.append(Block(item.path, kind, read_cache_point(member)))
            continue
        tool = _read_tool(member)
        if tool.name in tools:
            raise InvalidRequest(f"The tool name {tool.name} is defined twice; rename one.", where=member.path)
        tools[tool.name] = tool
    if not tools:
        raise config.need("tools").violation("Member must have at least one toolSpec")
    calling, name = _read_choice(config.get("toolChoice"), tools)
    return ToolConfig(tuple(tools.values()), calling, name, tuple(points))


def _read_tool(spec: Reader) -> Tool:
    name = spec.need("name").string(pattern=TOOL_NAME)
    parameters = spec.need("inputSchema").need("json")
    description, strict = spec.get("description"), spec.get("strict")
    tool = Tool(
        name,
        "" if description is None else description.string(at_least=1),
        parameters.mapping(),
        strict is not None and strict.boolean(),
    )
    return check_tool(tool, parameters)


def _read_choice(choice: Reader | None, names: Collection[str]) -> tuple[Calling, str]:
    if choice is None:
        return Calling.AUTO, ""
    kind, member = one_member(choice, ("auto", "any", "tool"))
    if kind != "tool":
        return (Calling.AUTO if kind == "auto" else Calling.ANY), ""
    name = member.need("name").string(pattern=TOOL_NAME)
    if name not in names:
        raise InvalidRequest(
            f"The toolChoice names the tool {name}, which toolConfig.tools does not define; add it or choose another.",
            where=member.path,
        )
    return Calling.ANY, name


def check_calls(turns: Sequence[Turn], has_tools: bool) -> None:
    """Calls are the assistant's, and every one is answered in the user's next turn, by nothing else.

    Args:
        turns: without those of the system; neighbours of one role are one turn.

    Raises:
        InvalidRequest: they do not belong together.
    """
    open_ids: list[str] = []
    for turn in turns:
        calls = [block.part.id for block in turn.blocks if isinstance(block.part, ToolCall)]
        results = [block.part.call_id for block in turn.blocks if isinstance(block.part, ToolResult)]
        if (calls or results) and not has_tools:
            raise InvalidRequest(
                "The toolConfig field must be defined when using toolUse and toolResult content blocks.", turn.path
            )
        if calls and turn.role == "user":
            raise InvalidRequest("A user message cannot contain toolUse blocks; they are the assistant's.", turn.path)
        if results and turn.role == "assistant":
            raise InvalidRequest("An assistant message cannot contain toolResult blocks; send them as user.", turn.path)
        if len(set(calls)) < len(calls):
            raise InvalidRequest(
                f"The toolUse blocks at {turn.path}.content must have different toolUseIds.", turn.path
            )
        _check_results(turn, open_ids, results)
        open_ids = calls
    if open_ids:
        messages, _, index = turns[-1].path.rpartition(".")
        raise _unanswered(f"{messages}.{int(index) + 1}", open_ids)


def _check_results(turn: Turn, open_ids: Sequence[str], results: Sequence[str]) -> None:
    answered = set(results)
    missing = [call_id for call_id in open_ids if call_id not in answered]
    if missing:
        raise _unanswered(turn.path, missing)
    if len(results) > len(open_ids):
        raise InvalidRequest(
            f"The number of toolResult blocks at {turn.path}.content exceeds the number of toolUse blocks of previous "
            "turn.",
            where=turn.path,
        )


def _unanswered(path: str, call_ids: Sequence[str]) -> InvalidRequest:
    return InvalidRequest(
        f"Expected toolResult blocks at {path}.content for the following Ids: {', '.join(call_ids)}", where=path
    )
