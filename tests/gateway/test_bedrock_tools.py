"""Tools and thoughts through every one of Bedrock's doors, as a model writes them and as boto3 reads them."""

import asyncio
import base64
import contextlib
import json
from typing import Any

import pytest

from tests.gateway.house import EOS, House, frames
from twinfer.gateway.fake import Script

pytestmark = pytest.mark.asyncio(loop_scope="module")

MODEL = "twinfer.tiny-v1:0"
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}}
TOOLS = {
    "tools": [
        {"toolSpec": {"name": name, "description": "Looks up.", "inputSchema": {"json": SCHEMA}}}
        for name in ("weather", "time_at")
    ]
}
USER = {"role": "user", "content": [{"text": "Weather in 東京?"}]}
CALL = '<tool_call>\n{"name": "weather", "arguments": {"city": "東京"}}\n</tool_call>'
OTHER = '<tool_call>\n{"name": "time_at", "arguments": {}}\n</tool_call>'
THOUGHT = "<think>\nI should look.\n</think>\n\nLooking."


async def converse(house: House, **fields: Any) -> dict[str, Any]:
    """What boto3 returns."""
    arguments = {"modelId": MODEL, "messages": [USER], "toolConfig": TOOLS, **fields}
    return await asyncio.to_thread(lambda: house.boto3().converse(**arguments))


async def converse_stream(house: House, **fields: Any) -> list[tuple[str, dict[str, Any]]]:
    """All events that boto3 returns."""
    arguments = {"modelId": MODEL, "messages": [USER], "toolConfig": TOOLS, **fields}

    def read() -> list[tuple[str, dict[str, Any]]]:
        with contextlib.closing(house.boto3().converse_stream(**arguments)["stream"]) as stream:
            return [next(iter(event.items())) for event in stream]

    return await asyncio.to_thread(read)


def fragments(data: bytes) -> list[str]:
    """The parts of calls' arguments in all whole frames of a stream, be they Converse's or Nova's."""
    found = []
    for name, event in frames(data[: whole_length(data)]):
        if name == "chunk":
            name, event = next(iter(json.loads(base64.b64decode(event["bytes"])).items()))
        if name == "contentBlockDelta" and "toolUse" in event["delta"]:
            found.append(event["delta"]["toolUse"]["input"])
    return found


def whole_length(data: bytes) -> int:
    """Bytes of the frames that have come in full."""
    end = 0
    while len(data) >= end + 4 and len(data) >= end + int.from_bytes(data[end : end + 4], "big"):
        end += int.from_bytes(data[end : end + 4], "big")
    return end


async def test_a_call_is_an_object_with_an_id(roomy: House) -> None:
    """After the text before it; the id can be sent back."""
    roomy.says(f"Let me see. {CALL}")
    answer = await converse(roomy)
    text, call = answer["output"]["message"]["content"]
    assert text["text"].strip() == "Let me see."
    assert (call["toolUse"]["name"], call["toolUse"]["input"]) == ("weather", {"city": "東京"})
    assert call["toolUse"]["toolUseId"].startswith("tooluse_")
    assert len(call["toolUse"]["toolUseId"]) == 30
    assert answer["stopReason"] == "tool_use"
    result = {"toolResult": {"toolUseId": call["toolUse"]["toolUseId"], "content": [{"json": {"c": 21}}]}}
    roomy.says("Warm.")
    answer = await converse(
        roomy, messages=[USER, answer["output"]["message"], {"role": "user", "content": [result, {"text": "So?"}]}]
    )
    assert (answer["stopReason"], answer["output"]["message"]["content"]) == ("end_turn", [{"text": "Warm."}])
    prompt = roomy.model.tokenizer.decode(roomy.dispatcher.generations[1].request.prompt)
    assert '<tool_response>\n{"c":21}\n</tool_response>' in prompt
    assert '{"name": "weather", "arguments": {"city": "東京"}}' in prompt


async def test_a_stream_has_a_block_for_each_thought_text_and_call(roomy: House) -> None:
    """Indices ascend, only calls have a start, fragments are JSON, and it all is what Converse says at once."""
    roomy.says(f"{THOUGHT} {CALL}\n{OTHER}")
    events = await converse_stream(roomy)
    starts = [event["start"]["toolUse"]["name"] for name, event in events if name == "contentBlockStart"]
    stops = [event["contentBlockIndex"] for name, event in events if name == "contentBlockStop"]
    assert (starts, stops) == (["weather", "time_at"], [0, 1, 2, 3])
    blocks: dict[int, list[dict[str, Any]]] = {}
    for name, event in events:
        if name == "contentBlockDelta":
            blocks.setdefault(event["contentBlockIndex"], []).append(event["delta"])
    thought = "".join(delta["reasoningContent"]["text"] for delta in blocks[0])
    text = "".join(delta["text"] for delta in blocks[1])
    calls = [json.loads("".join(delta["toolUse"]["input"] for delta in blocks[index])) for index in (2, 3)]
    whole = (await converse(roomy))["output"]["message"]["content"]
    assert whole[0]["reasoningContent"]["reasoningText"]["text"] == thought
    assert (whole[1]["text"], [block["toolUse"]["input"] for block in whole[2:]]) == (text, calls)
    assert (thought.strip(), text.strip(), calls) == ("I should look.", "Looking.", [{"city": "東京"}, {}])
    assert events[-2] == ("messageStop", {"stopReason": "tool_use"})


@pytest.mark.parametrize("operation", ["converse-stream", "invoke-with-response-stream"])
async def test_a_call_is_streamed_while_it_is_written(roomy: House, operation: str) -> None:
    """Its name and the first of its arguments are sent before the model has written the last of them."""
    written = asyncio.Event()
    begun, rest = (roomy.ids(part) for part in (CALL[: CALL.index("京")], CALL[CALL.index("京") :]))
    roomy.plays(Script([begun, rest, [EOS]], gates={1: written}))
    sent = b""
    body = {"messages": [USER], "toolConfig": TOOLS}
    async with roomy.http.stream("POST", f"/model/{MODEL}/{operation}", json=body) as response:
        async for part in response.aiter_bytes():
            sent += part
            if not written.is_set() and len(fragments(sent)) > 1:
                written.set()
    assert len(fragments(sent)) > 2
    assert json.loads("".join(fragments(sent))) == {"city": "東京"}


async def test_a_streamed_call_that_breaks_says_so(roomy: House) -> None:
    """What was sent of it cannot be taken back; sent whole, it would have been text."""
    roomy.says(CALL.replace("}", ""))
    events = await converse_stream(roomy)
    assert [event["start"]["toolUse"]["name"] for name, event in events if name == "contentBlockStart"] == ["weather"]
    assert events[-2] == ("messageStop", {"stopReason": "malformed_tool_use"})
    answer = await converse(roomy)
    assert (answer["stopReason"], [*answer["output"]["message"]["content"][0]]) == ("end_turn", ["text"])


@pytest.mark.parametrize(("choice", "name"), [({"any": {}}, "time_at"), ({"tool": {"name": "weather"}}, "weather")])
async def test_a_forced_call_is_begun_for_the_model(roomy: House, choice: dict[str, Any], name: str) -> None:
    """What the model writes after the opening is read as a call from the first character."""
    written = {"time_at": 'time_at", "arguments": {}}\n</tool_call>', "weather": ' {"city": "x"}}\n</tool_call>'}
    roomy.says(written[name])
    answer = await converse(roomy, toolConfig=TOOLS | {"toolChoice": choice})
    (block,) = answer["output"]["message"]["content"]
    assert (block["toolUse"]["name"], answer["stopReason"]) == (name, "tool_use")
    roomy.says("I would rather not.")
    assert (await converse(roomy, toolConfig=TOOLS | {"toolChoice": choice}))["stopReason"] == "malformed_tool_use"


async def test_a_call_that_is_cut_off_still_has_the_shape(roomy: House) -> None:
    """The length limit inside its arguments leaves an object, and says which limit it was."""
    ids = roomy.ids(f"{CALL}")
    for length in range(1, len(ids) + 1):
        roomy.plays(Script([[token] for token in [*ids, EOS]]))
        answer = await converse(roomy, inferenceConfig={"maxTokens": length})
        assert answer["stopReason"] == "max_tokens"
        events = await converse_stream(roomy, inferenceConfig={"maxTokens": length})
        assert events[-2][1] == {"stopReason": "max_tokens"}


async def test_a_model_without_tools_says_so(house: House) -> None:
    """Rather than to leave them out."""
    response = await house.http.post(f"/model/{MODEL}/converse", json={"messages": [USER], "toolConfig": TOOLS})
    assert (response.status_code, response.headers["x-amzn-errortype"]) == (400, "ValidationException")
    assert "doesn't support tool use" in response.json()["message"]


async def test_nova_s_body_calls_as_converse_does(roomy: House) -> None:
    """The same blocks, inside InvokeModel."""
    roomy.says(f"{THOUGHT} {CALL}")
    body = {"messages": [USER], "toolConfig": TOOLS}
    native = (await roomy.http.post(f"/model/{MODEL}/invoke", json=body)).json()
    content = (await converse(roomy))["output"]["message"]["content"]
    ours, theirs = (blocks[2].pop("toolUse") for blocks in (native["output"]["message"]["content"], content))
    assert native["output"]["message"]["content"] == content
    assert (ours["name"], ours["input"]) == (theirs["name"], theirs["input"])
    assert native["stopReason"] == "tool_use"
