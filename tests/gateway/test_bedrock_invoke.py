"""InvokeModel and InvokeModelWithResponseStream as boto3 and raw HTTP see them."""

import asyncio
import base64
import contextlib
import json
import re
from typing import Any

import pytest
from botocore.exceptions import EventStreamError
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.gateway.house import EOS, House, frames, post, raw_exchange
from tests.gateway.test_bedrock_converse import FAILURES, json_values
from twinfer.core.errors import DeadlineExceeded, TwinferError
from twinfer.gateway.fake import Script
from twinfer.gateway.text.conversation import Conversation, say

pytestmark = pytest.mark.asyncio(loop_scope="module")

LLAMA = "meta.llama3-1-8b-instruct-v1:0"
MODEL = "twinfer.tiny-v1:0"
METRICS = "amazon-bedrock-invocationMetrics"
CHAT = {"messages": [{"role": "user", "content": "hi"}]}
NOVA = {"messages": [{"role": "user", "content": [{"text": "hi"}]}]}
BODIES = [
    ("meta.llama3-1-8b-instruct-v1:0", {"prompt": "hi"}),
    ("mistral.mistral-7b-instruct-v0:2", {"prompt": "hi"}),
    ("mistral.mistral-large-2407-v1:0", CHAT),
    ("deepseek.r1-v1:0", {"prompt": "hi"}),
    ("deepseek.v3-v1:0", CHAT),
    ("qwen.qwen3-32b-v1:0", CHAT),
    ("openai.gpt-oss-20b-1:0", CHAT),
    ("amazon.nova-lite-v1:0", NOVA),
]
"""A model of each family, and its smallest body."""


async def invoke(house: House, model: str, body: Any, **fields: Any) -> tuple[dict[str, Any], dict[str, str]]:
    """Body and headers that boto3 returns."""

    def call() -> tuple[dict[str, Any], dict[str, str]]:
        answer = house.boto3().invoke_model(modelId=model, body=json.dumps(body), **fields)
        assert answer["contentType"] == "application/json"
        return json.loads(answer["body"].read()), answer["ResponseMetadata"]["HTTPHeaders"]

    return await asyncio.to_thread(call)


async def stream(house: House, model: str, body: Any, **fields: Any) -> list[dict[str, Any]]:
    """All chunks that boto3 returns, decoded."""

    def call() -> list[dict[str, Any]]:
        answer = house.boto3().invoke_model_with_response_stream(modelId=model, body=json.dumps(body), **fields)
        assert answer["contentType"] == "application/json"
        with contextlib.closing(answer["body"]) as events:
            return [json.loads(event["chunk"]["bytes"]) for event in events]

    return await asyncio.to_thread(call)


def counts(headers: dict[str, str]) -> list[int]:
    """Prompt tokens that were not cached, cached ones, and output tokens."""
    names = ("input", "cache-read-input", "output")
    return [int(headers[f"x-amzn-bedrock-{name}-token-count"]) for name in names]


@pytest.mark.parametrize(("name", "body"), BODIES)
async def test_counts_are_in_headers_and_in_the_last_chunk_alone(wild: House, name: str, body: dict[str, Any]) -> None:
    """The same numbers in both, whichever the family; times add up."""
    wild.says("Hello 東京 world", cached_tokens=2)
    _, headers = await invoke(wild, name, body)
    *chunks, last = await stream(wild, name, body)
    metrics = last[METRICS]
    prompt = len(wild.dispatcher.generations[0].request.prompt)
    expected = [prompt - 2, 2, len(wild.ids("Hello 東京 world")) + 1]
    assert expected == counts(headers)
    assert expected == [metrics[name] for name in ("inputTokenCount", "cacheReadInputTokenCount", "outputTokenCount")]
    assert 0 <= metrics["firstByteLatency"] <= metrics["invocationLatency"]
    assert int(headers["x-amzn-bedrock-invocation-latency"]) >= 0
    assert [chunk for chunk in chunks if METRICS in chunk] == []


async def test_a_body_needs_no_content_type(house: House) -> None:
    """boto3 sends none; neither does it say what it accepts."""
    body, headers = await invoke(house, LLAMA, {"prompt": "hi"})
    assert list(body) == ["generation", "prompt_token_count", "generation_token_count", "stop_reason"]
    assert "x-amzn-bedrock-service-tier" not in headers
    response = await house.http.post(f"/model/{LLAMA}/invoke", content=b'{"prompt":"hi"}', headers={"accept": "*/*"})
    assert (response.status_code, response.headers["content-type"]) == (200, "application/json")


async def test_how_it_was_served_is_told_to_who_chose(house: House) -> None:
    """Plain and streamed say so in headers; there is no pool for low latency."""
    chosen = {"performanceConfigLatency": "optimized", "serviceTier": "priority", "trace": "ENABLED"}
    for operation in ("invoke_model", "invoke_model_with_response_stream"):
        call = getattr(house.boto3(), operation)
        answer = await asyncio.to_thread(lambda call=call: call(modelId=LLAMA, body=b'{"prompt":"hi"}', **chosen))
        assert ("standard", "priority") == (answer["performanceConfigLatency"], answer["serviceTier"])
        answer["body"].close()


async def test_streams_are_events_of_one_kind(house: House) -> None:
    """Each holds one chunk of native JSON in base64, and the stream's type is not the chunks'."""
    response = await house.http.post(f"/model/{LLAMA}/invoke-with-response-stream", json={"prompt": "hi"})
    assert response.headers["content-type"] == "application/vnd.amazon.eventstream"
    assert response.headers["x-amzn-bedrock-content-type"] == "application/json"
    found = frames(response.content)
    assert {"chunk"} == {name for name, _ in found}
    assert "".join(json.loads(base64.b64decode(event["bytes"]))["generation"] for _, event in found) == "Hello world"


@pytest.mark.parametrize(
    ("headers", "message"),
    [
        ({"content-type": "text/plain"}, "content type text/plain"),
        ({"accept": "text/html"}, "accept type text/html"),
        ({"x-amzn-bedrock-service-tier": "bogus"}, "'bogus' at 'X-Amzn-Bedrock-service-tier'"),
        ({"x-amzn-bedrock-performanceconfig-latency": "warp"}, "'warp'"),
        ({"x-amzn-bedrock-trace": "maybe"}, "'maybe'"),
        ({"x-amzn-bedrock-guardrailidentifier": "abc"}, "guardrail identifier or version .* does not exist"),
        ({"x-amzn-bedrock-request-metadata": '{"key": "~"}'}, "pattern"),
        ({"x-amzn-bedrock-request-metadata": "{"}, "Malformed"),
    ],
)
async def test_headers_are_checked(house: House, headers: dict[str, str], message: str) -> None:
    """As the same fields of Converse are."""
    response = await house.http.post(f"/model/{LLAMA}/invoke", content=b'{"prompt":"hi"}', headers=headers)
    assert response.headers["x-amzn-errortype"] == "ValidationException"
    assert re.search(message, response.json()["message"])


async def test_a_body_without_what_its_family_needs_is_worded_as_aws_does(wild: House) -> None:
    """Clients match how the message begins."""
    for model, key in (("meta.llama3-8b-instruct-v1:0", "prompt"), ("openai.gpt-oss-20b-1:0", "messages")):
        for operation in ("invoke", "invoke-with-response-stream"):
            response = await wild.http.post(f"/model/{model}/{operation}", json={})
            assert (response.status_code, response.headers["x-amzn-errortype"], response.json()["message"]) == (
                400,
                "ValidationException",
                f"Malformed input request: #: required key [{key}] not found, please reformat your input and try "
                "again.",
            )
    response = await wild.http.post(f"/model/{LLAMA}/invoke", json={"prompt": "hi", "temperature": 2})
    assert response.json()["message"].startswith("Malformed input request: Value '2' at 'temperature' failed")
    response = await wild.http.post(f"/model/{LLAMA}/invoke", content=b"{")
    assert response.json()["message"].startswith("Malformed input request: ")


async def test_an_unknown_model_is_invalid_here_too(house: House) -> None:
    """In the runtime's words."""
    response = await house.http.post("/model/foo.bar-v1:0/invoke", json={"prompt": "hi"})
    assert (response.status_code, response.json()["message"]) == (400, "The provided model identifier is invalid.")


@pytest.mark.parametrize(("error", "status", "name", "in_stream"), FAILURES)
async def test_failures_have_their_statuses_before_the_first_token(
    house: House, error: TwinferError, status: int, name: str, in_stream: str
) -> None:
    """As for Converse."""
    house.plays(Script([], failure=error))
    for operation in ("invoke", "invoke-with-response-stream"):
        response = await house.http.post(f"/model/{LLAMA}/{operation}", json={"prompt": "hi"})
        assert (status, name) == (response.status_code, response.headers["x-amzn-errortype"])


@pytest.mark.parametrize(("error", "status", "name", "in_stream"), FAILURES)
async def test_failures_in_the_stream_break_it(
    house: House, error: TwinferError, status: int, name: str, in_stream: str
) -> None:
    """This stream knows a timeout; no metrics are told, and it does not end as if whole."""
    house.plays(Script([house.ids("Hel"), house.ids("lo")], failure=error))
    expected = "modelTimeoutException" if isinstance(error, DeadlineExceeded) else in_stream
    with pytest.raises(EventStreamError) as caught:
        await stream(house, LLAMA, {"prompt": "hi"})
    assert expected == caught.value.response["Error"]["Code"]
    raw = await raw_exchange(house.address, post(f"/model/{LLAMA}/invoke-with-response-stream", {"prompt": "hi"}))
    assert not raw.endswith(b"0\r\n\r\n")
    assert house.all_closed


async def test_every_door_makes_the_same_prompt(house: House) -> None:
    """Converse, Chat Completions, its native body, Nova's, and the templated text itself: token for token."""
    said = [("system", "Be brief."), ("user", "Who? 東京"), ("assistant", "Me."), ("user", "<|eos|>\n Why?")]
    blocks = [{"role": role, "content": [{"text": text}]} for role, text in said[1:]]
    converse = {"system": [{"text": said[0][1]}], "messages": blocks}
    chat = {"messages": [{"role": role, "content": text} for role, text in said]}
    template = house.model.template
    assert template is not None
    text = template.render(Conversation(tuple(say(role, content) for role, content in said)))
    for path, body in (
        (f"/model/{MODEL}/converse", converse),
        (f"/model/{MODEL}/converse-stream", converse),
        (f"/model/{MODEL}/invoke", converse),
        (f"/model/{MODEL}/invoke", chat),
        (f"/model/{MODEL}/invoke-with-response-stream", {"prompt": text}),
        (f"/model/{MODEL}/invoke", {"prompt": text, "max_gen_len": 5}),
        (f"/model/{MODEL}/invoke", {"prompt": text, "max_tokens": 5}),
        ("/v1/chat/completions", {**chat, "model": MODEL}),
    ):
        response = await house.http.post(path, json=body)
        assert response.status_code == 200, response.text
    prompts = [generation.request.prompt for generation in house.dispatcher.generations]
    assert [prompts[0]] * 8 == prompts


bodies = st.dictionaries(
    st.sampled_from(["prompt", "messages", "max_tokens", "stop", "system", "tools", "inferenceConfig", "temperature"]),
    json_values | st.lists(st.dictionaries(st.sampled_from(["role", "content", "type"]), json_values), max_size=2),
    max_size=4,
)


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(family=st.sampled_from(BODIES), body=bodies, valid=st.booleans())
async def test_no_body_is_our_fault(
    wild: House, family: tuple[str, dict[str, Any]], body: dict[str, Any], valid: bool
) -> None:
    """Whatever a client sends, it is answered or refused as its own mistake."""
    model, smallest = family
    response = await wild.http.post(f"/model/{model}/invoke", json={**body, **smallest} if valid else body)
    assert response.status_code in (200, 400), response.text


async def test_an_empty_answer_is_a_whole_one(wild: House) -> None:
    """Each family still says why it ended."""
    wild.plays(Script([[EOS]]))
    for model, body in BODIES:
        chunks = await stream(wild, model, body)
        assert METRICS in chunks[-1]
