"""pydantic-ai, by both doors."""

import asyncio
from typing import Any

import pytest

from conftest import CALLER, CITY, PLAIN, SAID, SCHEMA

pydantic_ai = pytest.importorskip("pydantic_ai")


def models(url: str, name: str) -> list[Any]:
    """One over Converse, one over Chat Completions."""
    from pydantic_ai.models.bedrock import BedrockConverseModel
    from pydantic_ai.models.openai import OpenAIChatModel
    from pydantic_ai.providers.bedrock import BedrockProvider
    from pydantic_ai.providers.openai import OpenAIProvider

    return [
        BedrockConverseModel(name, provider=BedrockProvider(base_url=url, region_name="us-east-1")),
        OpenAIChatModel(name, provider=OpenAIProvider(base_url=f"{url}/v1", api_key="none")),
    ]


def test_an_agent_answers(url: str) -> None:
    """Whole and streamed."""

    async def streamed(model: Any) -> str:
        async with pydantic_ai.Agent(model).run_stream("Sea?") as stream:
            return str(await stream.get_output())

    for model in models(url, PLAIN):
        assert asyncio.run(pydantic_ai.Agent(model).run("Sea?")).output == SAID
        assert asyncio.run(streamed(model)) == SAID


def test_a_model_calls(url: str) -> None:
    """The call's arguments, through the package's own request."""
    from pydantic_ai.direct import model_request
    from pydantic_ai.messages import ModelRequest, ToolCallPart
    from pydantic_ai.models import ModelRequestParameters
    from pydantic_ai.tools import ToolDefinition

    parameters = ModelRequestParameters(
        function_tools=[ToolDefinition(name="weather", description="Of a city.", parameters_json_schema=SCHEMA)]
    )
    for model in models(url, CALLER):
        asked = [ModelRequest.user_text_prompt("Weather in Oslo?")]
        answer = asyncio.run(model_request(model, asked, model_request_parameters=parameters))
        (call,) = [part for part in answer.parts if isinstance(part, ToolCallPart)]
        assert (call.tool_name, call.args_as_dict()) == ("weather", CITY)


def test_an_unknown_model(url: str) -> None:
    """The package's own error, with our status."""
    from pydantic_ai.exceptions import ModelHTTPError

    for model, status in zip(models(url, "foo.bar"), (400, 404), strict=True):
        with pytest.raises(ModelHTTPError) as error:
            asyncio.run(pydantic_ai.Agent(model).run("Sea?"))
        assert error.value.status_code == status
