"""langchain-aws, through Converse and through InvokeModel."""

from typing import Any

import pytest

from conftest import CALLER, CITY, PLAIN, SAID

langchain_aws = pytest.importorskip("langchain_aws")


def weather(city: str) -> str:
    """Of a city."""
    return f"cold in {city}"


def converse(url: str, model: str) -> Any:
    """The class over Converse."""
    return langchain_aws.ChatBedrockConverse(
        model=model, endpoint_url=url, base_url=url, region_name="us-east-1", provider=model.partition(".")[0]
    )


def test_converse(url: str) -> None:
    """Text, with its usage."""
    answer = converse(url, PLAIN).invoke("Tell me about the sea.")
    assert answer.text == SAID
    assert answer.usage_metadata["output_tokens"] > 0


def test_converse_streamed(url: str) -> None:
    """Chunks add up, and the last one brings the usage."""
    whole = None
    for chunk in converse(url, PLAIN).stream("Tell me about the sea."):
        whole = chunk if whole is None else whole + chunk
    assert whole is not None
    assert whole.text == SAID
    assert whole.usage_metadata["output_tokens"] > 0


def test_tools(url: str) -> None:
    """A call, and its result sent back; streamed the same."""
    from langchain_core.messages import HumanMessage, ToolMessage

    model = converse(url, CALLER).bind_tools([weather])
    ask = HumanMessage("Weather in Oslo?")
    answer = model.invoke([ask])
    (call,) = answer.tool_calls
    assert (call["name"], call["args"]) == ("weather", CITY)
    again = model.invoke([ask, answer, ToolMessage(weather(**call["args"]), tool_call_id=call["id"])])
    assert again.tool_calls[0]["name"] == "weather"
    whole = None
    for chunk in model.stream([ask]):
        whole = chunk if whole is None else whole + chunk
    assert whole is not None
    assert [(made["name"], made["args"]) for made in whole.tool_calls] == [("weather", CITY)]


def test_invoke_model(url: str) -> None:
    """The older class, which writes native bodies itself."""
    model = langchain_aws.ChatBedrock(model=PLAIN, endpoint_url=url, region="us-east-1", provider="meta")
    assert model.invoke("Tell me about the sea.").text == SAID
    assert "".join(chunk.text for chunk in model.stream("Tell me about the sea.")) == SAID
