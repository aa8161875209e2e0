"""strands-agents: an agent over Bedrock, and over OpenAI's API."""

import asyncio
import json
from typing import Any

import pytest

from conftest import CALLER, CITY, PLAIN, SAID, SCHEMA

strands = pytest.importorskip("strands")
SPEC: Any = {"name": "weather", "description": "Of a city.", "inputSchema": {"json": SCHEMA}}
ASK: Any = [{"role": "user", "content": [{"text": "Weather in Oslo?"}]}]


def bedrock(url: str, model: str, *, streaming: bool = True) -> Any:
    """The package's model over Converse or ConverseStream."""
    from strands.models import BedrockModel

    return BedrockModel(model_id=model, endpoint_url=url, region_name="us-east-1", streaming=streaming)


@pytest.mark.parametrize("streaming", [True, False])
def test_an_agent_answers(url: str, streaming: bool) -> None:
    """Text, with its usage."""
    answer = strands.Agent(model=bedrock(url, PLAIN, streaming=streaming), callback_handler=None)("Sea?")
    assert str(answer).strip() == SAID
    assert answer.stop_reason == "end_turn"
    assert answer.metrics.accumulated_usage["outputTokens"] > 0


@pytest.mark.parametrize("streaming", [True, False])
def test_a_model_calls(url: str, streaming: bool) -> None:
    """The events of a call, as an agent's loop reads them."""

    async def events() -> list[Any]:
        return [event async for event in bedrock(url, CALLER, streaming=streaming).stream(ASK, [SPEC])]

    found = asyncio.run(events())
    written = "".join(
        event["contentBlockDelta"]["delta"]["toolUse"]["input"]
        for event in found
        if "toolUse" in event.get("contentBlockDelta", {}).get("delta", {})
    )
    assert json.loads(written) == CITY
    assert [event["messageStop"]["stopReason"] for event in found if "messageStop" in event] == ["tool_use"]


def test_over_openai(url: str) -> None:
    """The same agent by the other door."""
    from strands.models.openai import OpenAIModel

    model = OpenAIModel(client_args={"base_url": f"{url}/v1", "api_key": "none"}, model_id=PLAIN)
    assert str(strands.Agent(model=model, callback_handler=None)("Sea?")).strip() == SAID
