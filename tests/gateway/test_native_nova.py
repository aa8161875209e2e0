from tests.gateway.house import an_answer
from twinfer.gateway.dialects.native import Addressed
from twinfer.gateway.dialects.native_nova import read_nova
from twinfer.gateway.dialects.reader import Reader
from twinfer.gateway.prepare import Options
from twinfer.gateway.text.content import TextDelta, ToolCallDelta, ToolCallStart
from twinfer.gateway.text.conversation import Conversation, say

ADDRESSED = Addressed("amazon.nova-lite-v1:0", "r", 0, streamed=False)
BODY = {
    "schemaVersion": "messages-v1",
    "system": [{"text": "Be brief."}],
    "messages": [{"role": "user", "content": [{"text": "hi"}]}],
    "inferenceConfig": {"max_new_tokens": 5, "temperature": 0.5, "topP": 0.25, "topK": 7, "stopSequences": ["x"]},
}


def test_a_body_is_converse_s_with_options_of_its_own() -> None:
    """Either spelling of the limits."""
    asked = read_nova(Reader(BODY, ""), ADDRESSED).asked
    assert asked.prompt == Conversation((say("system", "Be brief."), say("user", "hi")))
    assert asked.options == Options(max_tokens=5, temperature=0.5, top_p=0.25, top_k=7, stop=("x",))
    other = read_nova(Reader(BODY | {"inferenceConfig": {"maxTokens": 6}}, ""), ADDRESSED)
    assert other.asked.options == Options(max_tokens=6)


def test_an_answer_is_converse_s_too() -> None:
    """Whole, and event by event, each in a chunk of its own."""
    request = read_nova(Reader(BODY, ""), ADDRESSED)
    answer, pieces = an_answer(TextDelta("I call."), ToolCallStart("t1", "f"), ToolCallDelta('{"a":1}'))
    content = [{"text": "I call."}, {"toolUse": {"toolUseId": "t1", "name": "f", "input": {"a": 1}}}]
    body = request.body([answer])
    assert (body["output"]["message"]["content"], body["stopReason"]) == (content, "tool_use")
    assert body["usage"]["totalTokens"] == 7
    stream = request.stream(3)
    chunks = [*stream.begin(), *stream.pieces(pieces), *stream.end([answer], 5)]
    assert [next(iter(chunk)) for chunk in chunks] == [
        "messageStart",
        "contentBlockDelta",
        "contentBlockStop",
        "contentBlockStart",
        "contentBlockDelta",
        "contentBlockDelta",
        "contentBlockStop",
        "messageStop",
        "metadata",
    ]
    assert chunks[-1]["metadata"]["usage"] == body["usage"]
