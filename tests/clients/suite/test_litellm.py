"""litellm, which signs, sends and reads frames by itself."""

import json
from typing import Any

import pytest

from conftest import CALLER, CITY, PLAIN, SAID, SCHEMA

litellm = pytest.importorskip("litellm")
ASK = [{"role": "user", "content": "Tell me about the sea."}]
TOOL = {"type": "function", "function": {"name": "weather", "description": "Of a city.", "parameters": SCHEMA}}


def complete(url: str, model: str, **fields: Any) -> Any:
    """One call by a route."""
    where = {"api_base": f"{url}/v1", "api_key": "none"} if model.startswith("openai/") else {}
    return litellm.completion(
        model=model, messages=ASK, aws_bedrock_runtime_endpoint=url, aws_region_name="us-east-1", **where, **fields
    )


ROUTES = [f"bedrock/converse/{PLAIN}", f"bedrock/invoke/{PLAIN}", f"openai/{PLAIN}"]


@pytest.mark.parametrize("route", ROUTES)
def test_text(url: str, route: str) -> None:
    """Whole and streamed."""
    assert complete(url, route).choices[0].message.content == SAID
    chunks = list(complete(url, route, stream=True))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == SAID


@pytest.mark.parametrize("route", [f"bedrock/converse/{CALLER}", f"openai/{CALLER}"])
def test_tools(url: str, route: str) -> None:
    """A call, whole and streamed."""
    (call,) = complete(url, route, tools=[TOOL]).choices[0].message.tool_calls
    assert (call.function.name, json.loads(call.function.arguments)) == ("weather", CITY)
    chunks = list(complete(url, route, tools=[TOOL], stream=True))
    parts = [part for chunk in chunks for part in chunk.choices[0].delta.tool_calls or ()]
    assert json.loads("".join(part.function.arguments or "" for part in parts)) == CITY


def test_an_unknown_model(url: str) -> None:
    """A 400 is not tried again."""
    with pytest.raises(litellm.exceptions.BadRequestError):
        complete(url, "bedrock/converse/meta.none-v1:0")
