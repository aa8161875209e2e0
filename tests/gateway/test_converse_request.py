from typing import Any

import msgspec
import pytest

from tests.gateway.house import converse_body
from twinfer.core.errors import InvalidRequest
from twinfer.gateway.dialects.converse_request import Converse, read_converse
from twinfer.gateway.prepare import Options
from twinfer.gateway.text.conversation import (
    CachePoint,
    Calling,
    Conversation,
    Message,
    Reasoning,
    Text,
    Tool,
    ToolCall,
    ToolResult,
    say,
)


def read(**fields: Any) -> Converse:
    """Read the smallest request with some fields set."""
    return read_converse(msgspec.json.encode(converse_body() | fields))


def output(schema: str) -> dict[str, Any]:
    """An answer held to a schema."""
    structure = {"jsonSchema": {"schema": schema, "name": "it", "description": "What is wanted."}}
    return {"outputConfig": {"textFormat": {"type": "json_schema", "structure": structure}}}


def strict_tool(schema: Any) -> dict[str, Any]:
    """A tool whose calls are held to a schema."""
    return {"toolConfig": {"tools": [{"toolSpec": {"name": "it", "inputSchema": {"json": schema}, "strict": True}}]}}


def content(*blocks: Any) -> dict[str, Any]:
    """One user turn of these blocks."""
    return {"messages": [{"role": "user", "content": list(blocks)}]}


def test_empty_containers_are_as_good_as_none() -> None:
    """SDKs send them."""
    empty = {
        "system": [],
        "inferenceConfig": {},
        "additionalModelRequestFields": {},
        "additionalModelResponseFieldPaths": [],
        "requestMetadata": {},
        "performanceConfig": {},
        "outputConfig": {},
        "guardrailConfig": {},
        "promptVariables": {},
        "somethingNewer": [1],
    }
    assert read() == read(**empty)
    assert Conversation((say("user", "hi"),)) == read().conversation
    assert Options() == read().options


def test_a_conversation_is_read_in_order() -> None:
    """System blocks first; parts of a turn on lines of their own; neighbours of one role merged; silent blocks gone."""
    asked = read(
        system=[
            {"text": "One."},
            {"cachePoint": {"type": "default", "ttl": "5m"}},
            {"guardContent": {"text": {"text": "Two."}}},
        ],
        messages=[
            {"role": "user", "content": [{"text": "a"}, {"cachePoint": {"type": "default"}}, {"text": "b"}]},
            {"role": "user", "content": [{"text": "c"}]},
            {"role": "assistant", "content": [{"reasoningContent": {"reasoningText": {"text": "hm"}}}, {"text": "d"}]},
            {"role": "user", "content": [{"guardContent": {"text": {"text": "e"}}}]},
        ],
    )
    assert asked.conversation.messages == (
        Message("system", (Text("One."), CachePoint(300), Text("Two."))),
        Message("user", (Text("a"), CachePoint(300), Text("b"), Text("c"))),
        Message("assistant", (Reasoning("hm"), Text("d"))),
        say("user", "e"),
    )


TOOLS = {"tools": [{"toolSpec": {"name": "look_up", "inputSchema": {"json": {"type": "object"}}}}]}


def use(call_id: str, **arguments: Any) -> dict[str, Any]:
    """A block that calls the tool."""
    return {"toolUse": {"toolUseId": call_id, "name": "look_up", "input": arguments}}


def result(call_id: str, *content: Any, **fields: Any) -> dict[str, Any]:
    """A block that answers a call."""
    return {"toolResult": {"toolUseId": call_id, "content": list(content), **fields}}


def turns(*contents: list[Any], **fields: Any) -> dict[str, Any]:
    """Turns of both sides, beginning with the user's, and tools."""
    roles = ("user", "assistant")
    messages = [{"role": roles[index % 2], "content": content} for index, content in enumerate(contents)]
    return {"messages": messages, "toolConfig": TOOLS, **fields}


def test_calls_and_results_are_parts_of_the_conversation() -> None:
    """Each result is a message of its own, before what the user says beside it; JSON stays JSON."""
    asked = read(
        **turns(
            [{"text": "a"}],
            [{"reasoningContent": {"redactedContent": "eA=="}}, use("x", city="東京", at=None), use("y")],
            [{"text": "and?"}, result("y", {"json": {"t": [1]}}, {"text": "!"}), result("x", status="success")],
        )
    )
    assert asked.conversation.messages == (
        say("user", "a"),
        Message("assistant", (ToolCall("x", "look_up", {"city": "東京", "at": None}), ToolCall("y", "look_up", {}))),
        Message("tool", (ToolResult("y", '{"t":[1]}\n!'),)),
        Message("tool", (ToolResult("x", ""),)),
        say("user", "and?"),
    )
    failed = read(**turns([{"text": "a"}], [use("x")], [result("x", {"text": "no"}, status="error")]))
    assert Message("tool", (ToolResult("x", "no", is_error=True),)) == failed.conversation.messages[-1]


def test_results_may_come_in_neighbouring_turns() -> None:
    """These are one turn to the model: all results first, then what is said."""
    messages = turns([{"text": "a"}], [use("x"), use("y")])["messages"]
    more = [[result("x", {"text": "1"})], [{"text": "b"}], [result("y", {"text": "2"})]]
    asked = read(messages=[*messages, *({"role": "user", "content": each} for each in more)], toolConfig=TOOLS)
    assert ["user", "assistant", "tool", "tool", "user"] == [message.role for message in asked.conversation.messages]


@pytest.mark.parametrize(
    ("choice", "calling", "name"),
    [
        (None, Calling.AUTO, ""),
        ({"auto": {}}, Calling.AUTO, ""),
        ({"any": {}}, Calling.ANY, ""),
        ({"tool": {"name": "look_up"}}, Calling.ANY, "look_up"),
    ],
)
def test_tools_are_offered_as_they_are_described(choice: Any, calling: Calling, name: str) -> None:
    """With what must be called."""
    schema = {"type": "object", "properties": {"city": {"type": "string", "default": None}}}
    spec = {"name": "look_up", "description": "Looks up.", "inputSchema": {"json": schema}, "strict": True}
    tools = [{"toolSpec": spec}, {"cachePoint": {"type": "default"}}]
    asked = read(toolConfig={"tools": tools, "toolChoice": choice}).conversation
    assert (Tool("look_up", "Looks up.", schema, strict=True),) == asked.tools
    assert (calling, name) == (asked.calling, asked.tool)


SHAPE = [
    ({"messages": None}, "'messages' failed.*must not be null"),
    ({"messages": {}}, "'messages' failed.*must be a list"),
    ({"messages": [{"content": []}]}, "'messages.0.role' failed.*must not be null"),
    ({"messages": [{"role": "tool", "content": []}]}, "'tool' at 'messages.0.role' failed.*enum"),
    (content({"text": 1}), "'messages.0.content.0.text' failed.*must be a string"),
    (content({}), "'messages.0.content.0' failed.*exactly one"),
    (content({"text": "a", "image": {}}), "'messages.0.content.0' failed.*exactly one"),
    (content({"cachePoint": {"type": "eternal"}}), "'messages.0.content.0.cachePoint.type' failed.*enum"),
    ({"system": [{"image": {}}]}, "'system.0' failed.*exactly one"),
    (
        {"inferenceConfig": {"temperature": 1.5}},
        "'1.5' at 'inferenceConfig.temperature' failed.*less than or equal to 1",
    ),
    ({"inferenceConfig": {"topP": 2}}, "'inferenceConfig.topP' failed"),
    ({"inferenceConfig": {"maxTokens": 0}}, "'inferenceConfig.maxTokens' failed.*greater than or equal to 1"),
    ({"inferenceConfig": {"stopSequences": [""]}}, "'inferenceConfig.stopSequences.0' failed.*length"),
    ({"inferenceConfig": {"stopSequences": ["a"] * 2501}}, "stopSequences' failed.*length less"),
    ({"inferenceConfig": {"stopSequences": ["a" * 40_000]}}, "total length"),
    ({"serviceTier": {"type": "bogus"}}, "'bogus' at 'serviceTier.type' failed"),
    ({"serviceTier": {}}, "'serviceTier.type' failed"),
    ({"performanceConfig": {"latency": "warp"}}, "'performanceConfig.latency' failed"),
    ({"toolConfig": {}}, "'toolConfig.tools' failed"),
    ({"toolConfig": {"tools": []}}, "'toolConfig.tools' failed.*length"),
    ({"toolConfig": {"tools": [{}]}}, "'toolConfig.tools.0' failed.*exactly one"),
    ({"toolConfig": {"tools": [{"cachePoint": {"type": "default"}}]}}, "'toolConfig.tools' failed.*at least one"),
    (
        {"toolConfig": {"tools": [{"toolSpec": {"name": "bad name!", "inputSchema": {"json": {}}}}]}},
        "'bad name!' at 'toolConfig.tools.0.toolSpec.name' failed.*pattern",
    ),
    ({"toolConfig": {"tools": [{"toolSpec": {"name": "a", "inputSchema": {"json": 1}}}]}}, "inputSchema.json' failed"),
    ({"toolConfig": TOOLS | {"toolChoice": {}}}, "'toolConfig.toolChoice' failed.*exactly one"),
    (content({"reasoningContent": {}}), "reasoningContent' failed.*exactly one"),
    (content({"toolUse": {"toolUseId": "?", "name": "a", "input": {}}}), "toolUseId' failed.*pattern"),
    (content({"toolUse": {"toolUseId": "a", "name": "a", "input": []}}), "toolUse.input' failed.*object"),
    (content({"toolResult": {"toolUseId": "a", "content": [{}]}}), "content.0' failed.*exactly one"),
    ({"additionalModelResponseFieldPaths": ["nope"]}, "'nope' at 'additionalModelResponseFieldPaths.0' failed"),
    ({"additionalModelResponseFieldPaths": ["/a~2"]}, "JSON pointer"),
    ({"additionalModelResponseFieldPaths": [""]}, "length greater"),
    ({"additionalModelResponseFieldPaths": ["/a"] * 11}, "length less"),
    ({"requestMetadata": {str(n): "x" for n in range(17)}}, "'requestMetadata' failed"),
    ({"requestMetadata": {"key": "~"}}, "'requestMetadata.key' failed.*pattern"),
    ({"requestMetadata": {"~": "x"}}, "'~' at 'requestMetadata' failed.*pattern"),
    ({"additionalModelRequestFields": {"min_p": 2}}, "'additionalModelRequestFields.min_p' failed"),
    ({"additionalModelRequestFields": {"logit_bias": {"-1": 2}}}, "Keys must be token ids"),
    ({"additionalModelRequestFields": {"chat_template_kwargs": {"tools": []}}}, "is set by the server"),
    ({"additionalModelRequestFields": {"beam_width": 2}}, r"extraneous key \[beam_width\] is not permitted"),
]
MEANING = [
    ({"messages": []}, "A conversation must start with a user message"),
    ({"messages": [{"role": "assistant", "content": [{"text": "a"}]}]}, "must start with a user message"),
    (content(), "content field in the Message object at messages.0 is empty"),
    (content({"text": "a"}, {"text": " \n"}), "text field in the ContentBlock object at messages.0.content.1 is blank"),
    (turns([{"text": "a"}], [use("x")], toolConfig=None), "The toolConfig field must be defined when using toolUse"),
    (content(result("x")), "The toolConfig field must be defined when using toolUse and toolResult content blocks"),
    (
        turns([{"text": "a"}], [use("x"), use("y"), use("z")], [result("y")]),
        "Expected toolResult blocks at messages.2.content for the following Ids: x, z",
    ),
    (turns([{"text": "a"}], [use("x")]), "Expected toolResult blocks at messages.2.content for the following Ids: x"),
    (
        turns([{"text": "a"}], [use("x")], [result("x"), result("w")]),
        "number of toolResult blocks at messages.2.content exceeds the number of toolUse blocks of previous turn",
    ),
    (turns([result("x")]), "at messages.0.content exceeds the number of toolUse blocks"),
    (turns([{"text": "a"}], [use("x")], [result("x", status="error")]), "cannot be empty when status value is error"),
    (turns([{"text": "a"}], [use("x")], [result("x", {"image": {}})]), "doesn't support the image field"),
    (turns([use("x")]), "user message cannot contain toolUse"),
    (turns([{"text": "a"}], [result("x")]), "assistant message cannot contain toolResult"),
    (turns([{"text": "a"}], [use("x"), use("x")]), "must have different toolUseIds"),
    (content(*[{"text": "a"}, {"cachePoint": {"type": "default"}}] * 5), "4 cachePoint blocks at most.*content.9"),
    ({"toolConfig": {"tools": TOOLS["tools"] * 2}}, "look_up is defined twice"),
    ({"toolConfig": TOOLS | {"toolChoice": {"tool": {"name": "other"}}}}, "does not define"),
    ({"toolConfig": {"tools": [{"systemTool": {"name": "browser"}}]}}, "doesn't support the systemTool field"),
    (content({"text": "a"}, {"image": {}}), "This model doesn't support the image field. Remove image"),
    (content({"guardContent": {"image": {}}}), "doesn't support the image field"),
    (content({"document": {}}), "doesn't support the document field"),
    ({"system": [{"text": ""}]}, "'system.0.text' failed.*length greater"),
    ({"outputConfig": {"textFormat": {}}}, "'outputConfig.textFormat.type' failed.*must not be null"),
    (output("{"), "structure.jsonSchema.schema' failed.*Member must be JSON"),
    (output('{"type": "integer", "minimum": 1}'), "at outputConfig.*jsonSchema.schema.*'minimum' is not supported"),
    (strict_tool({"type": "object", "properties": {"a": {"maxLength": 1}}}), "#/properties/a: the keyword 'maxLength'"),
    ({"guardrailConfig": {"guardrailIdentifier": "x", "guardrailVersion": "1"}}, "does not exist"),
]


@pytest.mark.parametrize(("fields", "message"), SHAPE + MEANING)
def test_every_complaint_names_its_place(fields: dict[str, Any], message: str) -> None:
    """In the words of the service, which clients match."""
    with pytest.raises(InvalidRequest, match=message):
        read(**fields)


def test_shape_comes_before_meaning() -> None:
    """A value of the wrong type is reported before what the rest of the body means."""
    with pytest.raises(InvalidRequest, match=r"inferenceConfig\.topP"):
        read(messages=[], inferenceConfig={"topP": "x"})
