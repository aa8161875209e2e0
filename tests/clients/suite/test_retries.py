"""Refused at first, each client comes again by itself, when the gateway said so."""

import re
import uuid
from typing import Any

import pytest

from conftest import PLAIN

RETRY_S = 1.5
"""What the gateway says in its headers."""
REASONS = ("busy", "loading", "throttled", "lost")


def refuse(reason: str) -> str:
    """What a user says to be refused once."""
    return f"refuse: {reason} {uuid.uuid4().hex}"


def waited(answer: str) -> float:
    """Seconds between the refusal and the second attempt, which there must have been, and no third."""
    found = re.fullmatch(r"2 times, after ([\d.]+) s", answer)
    assert found, answer
    return float(found[1])


def boto3_client(url: str, **retries: Any) -> Any:
    """A client of the runtime."""
    boto3 = pytest.importorskip("boto3")
    from botocore.config import Config

    return boto3.client(
        "bedrock-runtime", endpoint_url=url, region_name="us-east-1", config=Config(retries=retries or None)
    )


def heeds_headers() -> bool:
    """Whether this botocore reads when to come back."""
    import botocore

    return tuple(map(int, botocore.__version__.split(".")[:2])) >= (1, 44)


@pytest.mark.parametrize("mode", ["legacy", "standard"])
@pytest.mark.parametrize("reason", REASONS)
def test_boto3(scripted_url: str, reason: str, mode: str) -> None:
    """In either of its modes, and not before it was told to, where it listens to that."""
    client = boto3_client(scripted_url, mode=mode, total_max_attempts=3)
    messages = [{"role": "user", "content": [{"text": refuse(reason)}]}]
    answer = client.converse(modelId=PLAIN, messages=messages)
    assert answer["ResponseMetadata"]["RetryAttempts"] == 1
    seconds = waited(answer["output"]["message"]["content"][0]["text"])
    if mode == "standard" and heeds_headers() and reason != "lost":
        assert seconds >= RETRY_S


@pytest.mark.parametrize("reason", REASONS)
def test_boto3_streamed(scripted_url: str, reason: str) -> None:
    """A stream that did not begin is tried again as well."""
    messages = [{"role": "user", "content": [{"text": refuse(reason)}]}]
    stream = boto3_client(scripted_url).converse_stream(modelId=PLAIN, messages=messages)["stream"]
    deltas = [event["contentBlockDelta"]["delta"]["text"] for event in stream if "contentBlockDelta" in event]
    assert waited("".join(deltas)) > 0


def test_boto3_without_retries(scripted_url: str) -> None:
    """The exceptions of the service model, with what the gateway says in their headers."""
    client = boto3_client(scripted_url, total_max_attempts=1)
    for reason, name, status in (
        ("busy", "ServiceUnavailableException", 503),
        ("throttled", "ThrottlingException", 429),
        ("loading", "ModelNotReadyException", 429),
    ):
        messages = [{"role": "user", "content": [{"text": refuse(reason)}]}]
        with pytest.raises(getattr(client.exceptions, name)) as refused:
            client.converse(modelId=PLAIN, messages=messages)
        told = refused.value.response["ResponseMetadata"]
        assert (told["HTTPStatusCode"], told["HTTPHeaders"]["x-amz-retry-after"]) == (status, "1500")


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("reason", REASONS)
def test_openai(scripted_url: str, reason: str, stream: bool) -> None:
    """Not before it was told to."""
    openai = pytest.importorskip("openai")
    client = openai.OpenAI(base_url=f"{scripted_url}/v1", api_key="none")
    asked: Any = [{"role": "user", "content": refuse(reason)}]
    answer = client.chat.completions.create(model=PLAIN, messages=asked, stream=stream)
    if stream:
        text = "".join(choice.delta.content or "" for chunk in answer for choice in chunk.choices)
    else:
        text = answer.choices[0].message.content
    assert waited(text) >= (1.0 if reason == "lost" else RETRY_S)


def test_openai_without_retries(scripted_url: str) -> None:
    """The classes by status, and the headers."""
    openai = pytest.importorskip("openai")
    client = openai.OpenAI(base_url=f"{scripted_url}/v1", api_key="none", max_retries=0)
    for reason, error in (("busy", openai.InternalServerError), ("throttled", openai.RateLimitError)):
        asked: Any = [{"role": "user", "content": refuse(reason)}]
        with pytest.raises(error) as refused:
            client.chat.completions.create(model=PLAIN, messages=asked)
        headers = refused.value.response.headers
        assert (headers["retry-after-ms"], headers["retry-after"], headers["x-should-retry"]) == ("1500", "2", "true")
