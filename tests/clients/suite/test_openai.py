"""The openai package."""

import json
from typing import Any

import pytest

from conftest import BEFORE, CALLER, CITY, PLAIN, SAID, SCHEMA, THOUGHT

openai = pytest.importorskip("openai")
ASK: Any = [{"role": "user", "content": "Tell me about the sea."}]
TOOL: Any = {"type": "function", "function": {"name": "weather", "description": "Of a city.", "parameters": SCHEMA}}


@pytest.fixture(scope="module", params=["/v1", "/openai/v1"])
def client(url: str, request: pytest.FixtureRequest) -> Any:
    """By either prefix."""
    return openai.OpenAI(base_url=url + request.param, api_key="none")


def test_chat(client: Any) -> None:
    """Text and counts; streamed with usage."""
    answer = client.chat.completions.create(model=PLAIN, messages=ASK)
    assert answer.choices[0].message.content == SAID
    chunks = list(
        client.chat.completions.create(model=PLAIN, messages=ASK, stream=True, stream_options={"include_usage": True})
    )
    assert "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices) == SAID
    assert chunks[-1].usage.completion_tokens == answer.usage.completion_tokens


def test_tools(client: Any) -> None:
    """A call with what was thought and said before it, and its result sent back."""
    answer = client.chat.completions.create(model=CALLER, messages=ASK, tools=[TOOL])
    message = answer.choices[0].message
    assert (message.content, message.reasoning_content) == (BEFORE, THOUGHT)
    (call,) = message.tool_calls
    assert (call.function.name, json.loads(call.function.arguments)) == ("weather", CITY)
    result = {"role": "tool", "tool_call_id": call.id, "content": "4 degrees"}
    again = client.chat.completions.create(model=CALLER, messages=[*ASK, message, result], tools=[TOOL])
    assert again.choices[0].finish_reason == "tool_calls"


def test_tools_streamed(client: Any) -> None:
    """The package's own accumulator puts the call together."""
    with client.chat.completions.stream(model=CALLER, messages=ASK, tools=[TOOL]) as stream:
        message = stream.get_final_completion().choices[0].message
    assert json.loads(message.tool_calls[0].function.arguments) == CITY


def test_several_choices(client: Any) -> None:
    """n and log probabilities."""
    answer = client.chat.completions.create(model=PLAIN, messages=ASK, n=2, logprobs=True, top_logprobs=1)
    assert [choice.index for choice in answer.choices] == [0, 1]
    assert "".join(token.token for token in answer.choices[0].logprobs.content) == SAID


def test_completions(client: Any) -> None:
    """The older API."""
    answer = client.completions.create(model=PLAIN, prompt=["sea", "ocean"], max_tokens=64)
    assert [choice.text for choice in answer.choices] == [SAID, SAID]


def test_responses(client: Any) -> None:
    """Whole, and by the package's own accumulator of events."""
    assert client.responses.create(model=PLAIN, input="sea").output_text == SAID
    with client.responses.stream(model=PLAIN, input="sea") as stream:
        assert stream.get_final_response().output_text == SAID


def test_models(client: Any) -> None:
    """List and get."""
    assert {model.id for model in client.models.list()} == {PLAIN, CALLER}
    assert client.models.retrieve(PLAIN).id == PLAIN


def test_errors(client: Any) -> None:
    """The classes by status."""
    with pytest.raises(openai.NotFoundError) as unknown:
        client.chat.completions.create(model="foo", messages=ASK)
    assert unknown.value.code == "model_not_found"
    with pytest.raises(openai.BadRequestError) as bad:
        client.chat.completions.create(model=PLAIN, messages=ASK, temperature=3)
    assert bad.value.param == "temperature"
