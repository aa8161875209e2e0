from typing import Any

import msgspec
import pytest

from tests.gateway.house import converse_body
from twinfer.core.errors import InvalidRequest
from twinfer.gateway.dialects.converse_request import Converse, read_converse
from twinfer.gateway.prepare import Options
from twinfer.gateway.text.conversation import Conversation, Message, Text, say


def read(**fields: Any) -> Converse:
    """Read the smallest request with some fields set."""
    return read_converse(msgspec.json.encode(converse_body() | fields))


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
        Message("system", (Text("One."), Text("Two."))),
        Message("user", (Text("a"), Text("b"), Text("c"))),
        say("assistant", "d"),
        say("user", "e"),
    )


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
    (content({"text": "a"}, {"toolUse": {}}), "The toolConfig field must be defined when using toolUse and toolResult"),
    (content({"text": "a"}, {"image": {}}), "This model doesn't support the image field. Remove image"),
    (content({"guardContent": {"image": {}}}), "doesn't support the image field"),
    (content({"document": {}}), "doesn't support the document field"),
    ({"system": [{"text": ""}]}, "'system.0.text' failed.*length greater"),
    ({"toolConfig": {"tools": [{}]}}, "doesn't support the toolConfig field"),
    ({"outputConfig": {"textFormat": {}}}, "doesn't support the textFormat field"),
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
