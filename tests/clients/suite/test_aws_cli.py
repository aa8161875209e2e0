"""The AWS command line, which has no streams."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from conftest import PLAIN, SAID

AWS = Path(sys.executable).with_name("aws")
pytestmark = pytest.mark.skipif(not AWS.exists(), reason="the AWS command line is not installed here")


def aws(url: str, *arguments: str) -> Any:
    """Run a command; its JSON."""
    command = [str(AWS), "--endpoint-url", url, "--output", "json", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_converse(url: str) -> None:
    """Text."""
    messages = json.dumps([{"role": "user", "content": [{"text": "Tell me about the sea."}]}])
    answer = aws(url, "bedrock-runtime", "converse", "--model-id", PLAIN, "--messages", messages)
    assert answer["output"]["message"]["content"] == [{"text": SAID}]


def test_invoke_model(url: str, tmp_path: Path) -> None:
    """The native body, in a file."""
    body = json.dumps({"prompt": "sea"})
    path = tmp_path / "answer.json"
    aws(url, "bedrock-runtime", "invoke-model", "--model-id", PLAIN, "--body", body, str(path))
    assert json.loads(path.read_text())["generation"] == SAID


def test_count_tokens(url: str) -> None:
    """A number."""
    asked = json.dumps({"converse": {"messages": [{"role": "user", "content": [{"text": "sea"}]}]}})
    assert aws(url, "bedrock-runtime", "count-tokens", "--model-id", PLAIN, "--input", asked)["inputTokens"] > 0


def test_list_foundation_models(url: str) -> None:
    """The models."""
    listed = aws(url, "bedrock", "list-foundation-models")["modelSummaries"]
    assert PLAIN in {model["modelId"] for model in listed}


def test_an_error(url: str) -> None:
    """Its exit code and the service's own words."""
    messages = json.dumps([{"role": "user", "content": [{"text": "sea"}]}])
    asked = ("bedrock-runtime", "converse", "--model-id", "foo.bar", "--messages", messages)
    command = [str(AWS), "--endpoint-url", url, *asked]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "The provided model identifier is invalid." in done.stderr
