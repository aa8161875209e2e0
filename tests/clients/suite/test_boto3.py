"""boto3, whichever version the environment has."""

import json
from typing import Any

import pytest

from conftest import BEFORE, CALLER, CITY, PLAIN, SAID, SCHEMA, THOUGHT

boto3 = pytest.importorskip("boto3")
ASK = [{"role": "user", "content": [{"text": "Tell me about the sea."}]}]
TOOLS = {"tools": [{"toolSpec": {"name": "weather", "description": "Of a city.", "inputSchema": {"json": SCHEMA}}}]}


@pytest.fixture(scope="module")
def runtime(url: str) -> Any:
    """A client of the runtime."""
    return boto3.client("bedrock-runtime", endpoint_url=url, region_name="us-east-1")


@pytest.fixture(scope="module")
def control(url: str) -> Any:
    """A client of the control plane."""
    return boto3.client("bedrock", endpoint_url=url, region_name="us-east-1")


def test_converse(runtime: Any) -> None:
    """Text and honest counts."""
    answer = runtime.converse(modelId=PLAIN, messages=ASK)
    assert answer["output"]["message"]["content"] == [{"text": SAID}]
    assert answer["stopReason"] == "end_turn"
    usage = answer["usage"]
    read = usage.get("cacheReadInputTokens", 0)
    assert usage["totalTokens"] == usage["inputTokens"] + usage["outputTokens"] + read


def test_converse_stream(runtime: Any) -> None:
    """The same text, piece by piece, and the events in order."""
    events = list(runtime.converse_stream(modelId=f"us.{PLAIN}", messages=ASK)["stream"])
    kinds = [next(iter(event)) for event in events]
    assert kinds[0] == "messageStart"
    assert kinds[-3:] == ["contentBlockStop", "messageStop", "metadata"]
    deltas = [event["contentBlockDelta"]["delta"] for event in events if "contentBlockDelta" in event]
    assert "".join(delta["text"] for delta in deltas) == SAID


def test_tools(runtime: Any) -> None:
    """A call, its result, and the answer to that."""
    answer = runtime.converse(modelId=CALLER, messages=ASK, toolConfig=TOOLS)
    message = answer["output"]["message"]
    reasoning, text, call = message["content"]
    assert reasoning["reasoningContent"]["reasoningText"]["text"] == THOUGHT
    assert text["text"] == BEFORE
    assert (call["toolUse"]["name"], call["toolUse"]["input"]) == ("weather", CITY)
    assert answer["stopReason"] == "tool_use"
    result = {"toolResult": {"toolUseId": call["toolUse"]["toolUseId"], "content": [{"json": {"degrees": 4}}]}}
    history = [*ASK, message, {"role": "user", "content": [result]}]
    with pytest.raises(runtime.exceptions.ValidationException):
        runtime.converse(modelId=PLAIN, messages=history)  # calls without toolConfig
    again = runtime.converse(modelId=CALLER, messages=history, toolConfig=TOOLS)
    assert again["stopReason"] == "tool_use"  # this model can do nothing else


def test_tools_streamed(runtime: Any) -> None:
    """The fragments of a call make its input."""
    events = list(runtime.converse_stream(modelId=CALLER, messages=ASK, toolConfig=TOOLS)["stream"])
    starts = [event["contentBlockStart"]["start"] for event in events if "contentBlockStart" in event]
    assert [start["toolUse"]["name"] for start in starts] == ["weather"]
    deltas = [event["contentBlockDelta"]["delta"] for event in events if "contentBlockDelta" in event]
    assert json.loads("".join(delta["toolUse"]["input"] for delta in deltas if "toolUse" in delta)) == CITY


def test_invoke_model(runtime: Any) -> None:
    """The native body of the family, whole and streamed, with counts in headers."""
    body = json.dumps({"prompt": "Tell me about the sea.", "max_gen_len": 64})
    answer = runtime.invoke_model(modelId=PLAIN, body=body)
    told = json.loads(answer["body"].read())
    assert (told["generation"], told["stop_reason"]) == (SAID, "stop")
    headers = answer["ResponseMetadata"]["HTTPHeaders"]
    assert int(headers["x-amzn-bedrock-output-token-count"]) == told["generation_token_count"]
    stream = runtime.invoke_model_with_response_stream(modelId=PLAIN, body=body)["body"]
    chunks = [json.loads(event["chunk"]["bytes"]) for event in stream]
    assert "".join(chunk["generation"] for chunk in chunks) == SAID
    assert chunks[-1]["amazon-bedrock-invocationMetrics"]["outputTokenCount"] == told["generation_token_count"]


def test_count_tokens(runtime: Any) -> None:
    """Exactly what the request then reports."""
    if not hasattr(runtime, "count_tokens"):
        pytest.skip("this version has no CountTokens")
    counted = runtime.count_tokens(modelId=CALLER, input={"converse": {"messages": ASK, "toolConfig": TOOLS}})
    usage = runtime.converse(modelId=CALLER, messages=ASK, toolConfig=TOOLS)["usage"]
    assert counted["inputTokens"] == usage["inputTokens"] + usage.get("cacheReadInputTokens", 0)


def test_errors(runtime: Any) -> None:
    """The exceptions that the service model names."""
    with pytest.raises(runtime.exceptions.ValidationException, match="The provided model identifier is invalid"):
        runtime.converse(modelId="foo.bar-v1:0", messages=ASK)
    with pytest.raises(runtime.exceptions.ValidationException, match="temperature"):
        runtime.converse(modelId=PLAIN, messages=ASK, inferenceConfig={"temperature": 1.5})
    missing = "arn:aws:bedrock:us-east-1:123456789012:application-inference-profile/none"
    with pytest.raises(runtime.exceptions.ResourceNotFoundException):
        runtime.converse(modelId=missing, messages=ASK)


def test_control_plane(control: Any) -> None:
    """Models and profiles."""
    listed = control.list_foundation_models()["modelSummaries"]
    assert {model["modelId"] for model in listed} == {PLAIN, CALLER}
    assert control.get_foundation_model(modelIdentifier=PLAIN)["modelDetails"]["modelId"] == PLAIN
    profiles = control.list_inference_profiles()["inferenceProfileSummaries"]
    assert f"us.{PLAIN}" in {profile["inferenceProfileId"] for profile in profiles}
