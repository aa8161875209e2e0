"""CountTokens says what the request then reports."""

import asyncio
import base64
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.gateway.house import EOS, House, converse_body
from twinfer.gateway.fake import Script

pytestmark = pytest.mark.asyncio(loop_scope="module")

MODEL = "twinfer.tiny-v1:0"

words = st.text(min_size=1, max_size=12).filter(str.strip)
names = st.sampled_from(["look_up", "send-mail", "x"])
values = st.recursive(
    st.none() | st.booleans() | st.integers(-99, 99) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=4,
)
arguments = st.dictionaries(st.text(max_size=4), values, max_size=2)


@st.composite
def conversations(draw: st.DrawFn) -> dict[str, Any]:
    """Turns of text, thoughts, calls and their results, with what the model is told before."""
    messages = [{"role": "user", "content": [{"text": draw(words)}]}]
    for turn in range(draw(st.integers(0, 2))):
        calls = [
            {"toolUse": {"toolUseId": f"t{turn}-{n}", "name": draw(names), "input": draw(arguments)}}
            for n in range(draw(st.integers(0, 2)))
        ]
        thoughts = [{"reasoningContent": {"reasoningText": {"text": draw(words)}}}] if draw(st.booleans()) else []
        messages.append({"role": "assistant", "content": [*thoughts, {"text": draw(words)}, *calls]})
        results = [
            {"toolResult": {"toolUseId": call["toolUse"]["toolUseId"], "content": draw(results_of)}} for call in calls
        ]
        messages.append({"role": "user", "content": [*results, {"text": draw(words)}]})
    tools = [
        {"toolSpec": {"name": name, "description": draw(words), "inputSchema": {"json": draw(arguments)}}}
        for name in ("look_up", "send-mail", "x")
    ]
    system = [{"text": draw(words)}] if draw(st.booleans()) else []
    choice = draw(st.sampled_from([None, {"auto": {}}, {"any": {}}, {"tool": {"name": "x"}}]))
    return {"messages": messages, "system": system, "toolConfig": {"tools": tools, "toolChoice": choice}}


results_of = st.lists(
    words.map(lambda text: {"text": text}) | values.map(lambda value: {"json": {"v": value}}), max_size=2
)


@settings(
    max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(conversation=conversations(), cached=st.integers(0, 5))
async def test_a_conversation_s_count_is_what_its_answer_reports(
    roomy: House, conversation: dict[str, Any], cached: int
) -> None:
    """Whatever is in it, cached tokens included."""
    roomy.plays(Script([[EOS]], cached_tokens=cached))
    counted = await roomy.http.post(f"/model/{MODEL}/count-tokens", json={"input": {"converse": conversation}})
    answered = await roomy.http.post(f"/model/{MODEL}/converse", json=conversation)
    assert (200, 200) == (counted.status_code, answered.status_code), answered.text
    usage = answered.json()["usage"]
    assert counted.json()["inputTokens"] == sum(
        usage[name] for name in ("inputTokens", "cacheReadInputTokens", "cacheWriteInputTokens")
    )


@pytest.mark.parametrize(
    "body",
    [
        {"prompt": "hi 東京"},
        {"prompt": "<|bos|>hi", "max_gen_len": 5},
        {"messages": [{"role": "user", "content": "hi"}], "stream": False},
        {"messages": [{"role": "user", "content": [{"text": "hi"}]}], "inferenceConfig": {"maxTokens": 5}},
    ],
)
async def test_a_native_body_s_count_is_what_its_header_reports(house: House, body: dict[str, Any]) -> None:
    """In any family's form; boto3 puts it into base64."""
    data = msgspec.json.encode(body)
    request = {"invokeModel": {"body": data}}
    counted = await asyncio.to_thread(lambda: house.boto3().count_tokens(modelId=MODEL, input=request))
    answered = await house.http.post(f"/model/{MODEL}/invoke", content=data)
    assert str(counted["inputTokens"]) == answered.headers["x-amzn-bedrock-input-token-count"]


async def test_a_streaming_body_can_be_counted(house: House) -> None:
    """Which operation it is meant for does not matter."""
    body = base64.b64encode(b'{"messages":[{"role":"user","content":"hi"}],"stream":true}').decode()
    response = await house.http.post(f"/model/{MODEL}/count-tokens", json={"input": {"invokeModel": {"body": body}}})
    assert response.status_code == 200


async def test_counting_asks_no_worker_and_knows_no_limit(house: House) -> None:
    """A prompt that is too long can be counted, so that a client may shorten it."""
    body = {"input": {"converse": converse_body("word " * 1000)}}
    response = await house.http.post(f"/model/{MODEL}/count-tokens", json=body)
    assert response.json()["inputTokens"] > 512
    assert house.dispatcher.generations == []


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"input": {}},
        {"input": {"converse": {}, "invokeModel": {}}},
        {"input": {"converse": {"messages": []}}},
        {"input": {"invokeModel": {"body": "?"}}},
        {"input": {"invokeModel": {"body": "e30="}}},
        {"input": {"invokeModel": {"body": "eyI="}}},
    ],
)
async def test_what_cannot_be_counted_is_refused(house: House, body: dict[str, Any]) -> None:
    """As the request itself would be."""
    response = await house.http.post(f"/model/{MODEL}/count-tokens", json=body)
    assert (response.status_code, response.headers["x-amzn-errortype"]) == (400, "ValidationException")
    path = f"/model/{'x' * 257}/count-tokens"
    assert (await house.http.post(path, json={"input": {"converse": converse_body()}})).status_code == 400
