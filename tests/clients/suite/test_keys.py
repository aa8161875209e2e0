"""A deployment with keys, over TLS: who signs, who shows a bearer key, and who is refused."""

import json
import os
import ssl
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from conftest import PLAIN, SAID, Keyed

KINDS = ("signed", "temporary", "bearer")
ASK: Any = [{"role": "user", "content": [{"text": "Tell me about the sea."}]}]
CHAT: Any = [{"role": "user", "content": "Tell me about the sea."}]
AWS = Path(sys.executable).with_name("aws")


@pytest.fixture(autouse=True)
def _nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """No credentials but those that a test sets."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


def set_all(monkeypatch: pytest.MonkeyPatch, variables: dict[str, str]) -> None:
    """As somebody exports them."""
    for name, value in variables.items():
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize("kind", KINDS)
def test_boto3(keyed: Keyed, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whole, streamed, and the control plane; with what is in the environment alone."""
    boto3 = pytest.importorskip("boto3")
    set_all(monkeypatch, getattr(keyed, kind))
    session = boto3.Session()
    runtime = session.client("bedrock-runtime", endpoint_url=keyed.url, verify=keyed.ca)
    assert runtime.converse(modelId=PLAIN, messages=ASK)["output"]["message"]["content"] == [{"text": SAID}]
    assert "metadata" in list(runtime.converse_stream(modelId=PLAIN, messages=ASK)["stream"])[-1]
    control = session.client("bedrock", endpoint_url=keyed.url, verify=keyed.ca)
    assert PLAIN in {model["modelId"] for model in control.list_foundation_models()["modelSummaries"]}


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"AWS_SECRET_ACCESS_KEY": "wrong"}, "InvalidSignatureException"),
        ({"AWS_ACCESS_KEY_ID": "AKIANOBODY"}, "UnrecognizedClientException"),
        ({"AWS_SESSION_TOKEN": "none"}, "UnrecognizedClientException"),
        ({"AWS_BEARER_TOKEN_BEDROCK": "ABSKnone"}, "AccessDeniedException"),
    ],
)
def test_boto3_is_refused(keyed: Keyed, changes: dict[str, str], code: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """By AWS's names; a bearer key that is set wins over an access key."""
    boto3 = pytest.importorskip("boto3")
    set_all(monkeypatch, keyed.signed | changes)
    runtime = boto3.Session().client("bedrock-runtime", endpoint_url=keyed.url, verify=keyed.ca)
    with pytest.raises(runtime.exceptions.ClientError) as refused:
        runtime.converse(modelId=PLAIN, messages=ASK)
    assert refused.value.response["Error"]["Code"] == code
    assert refused.value.response["ResponseMetadata"]["HTTPStatusCode"] == 403


@pytest.mark.skipif(not AWS.exists(), reason="the AWS command line is not installed here")
@pytest.mark.parametrize("kind", KINDS)
def test_the_command_line(keyed: Keyed, kind: str) -> None:
    """It finds everything in the environment."""
    asked = ["bedrock-runtime", "converse", "--model-id", PLAIN, "--messages", json.dumps(ASK)]
    command = [str(AWS), "--endpoint-url", keyed.url, "--ca-bundle", keyed.ca, "--output", "json", *asked]
    variables = os.environ | getattr(keyed, kind)
    done = subprocess.run(command, env=variables, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["output"]["message"]["content"] == [{"text": SAID}]


def http_client(openai: Any, keyed: Keyed) -> Any:
    """One that trusts the endpoint."""
    return openai.DefaultHttpxClient(verify=ssl.create_default_context(cafile=keyed.ca))


def test_openai(keyed: Keyed) -> None:
    """The bearer key is its API key; another is 401."""
    openai = pytest.importorskip("openai")
    key, http = keyed.bearer["AWS_BEARER_TOKEN_BEDROCK"], http_client(openai, keyed)
    client = openai.OpenAI(base_url=f"{keyed.url}/v1", api_key=key, http_client=http)
    assert client.chat.completions.create(model=PLAIN, messages=CHAT).choices[0].message.content == SAID
    with pytest.raises(openai.AuthenticationError):
        client.with_options(api_key="sk-wrong").models.list()


@pytest.mark.parametrize("kind", KINDS)
def test_openai_s_client_of_bedrock(keyed: Keyed, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It signs for `bedrock-mantle`, with the body's digest and every header of its own."""
    openai = pytest.importorskip("openai")
    if not hasattr(openai, "BedrockOpenAI"):
        pytest.skip("this version of openai has no client of Bedrock")
    pytest.importorskip("botocore")
    set_all(monkeypatch, getattr(keyed, kind))
    base_url, http = f"{keyed.url}/openai/v1", http_client(openai, keyed)
    client = openai.BedrockOpenAI(base_url=base_url, aws_region="us-east-1", http_client=http)
    assert client.chat.completions.create(model=PLAIN, messages=CHAT).choices[0].message.content == SAID
    chunks = client.chat.completions.create(model=PLAIN, messages=CHAT, stream=True)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == SAID
