"""Tools and reasoning in Chat Completions, as the openai SDK and its types see them."""

import json
from typing import Any

import msgspec
import pytest

from tests.gateway import openai_shape
from tests.gateway.house import House

pytestmark = pytest.mark.asyncio(loop_scope="module")

MODEL = "twinfer.tiny-v1:0"
PATH = "/v1/chat/completions"
WEATHER = {
    "type": "function",
    "function": {"name": "weather", "description": "Of a city.", "parameters": {"type": "object"}},
}
CALLS = (
    "Let me see."
    '<tool_call>\n{"name": "weather", "arguments": {"city": "Oslo"}}\n</tool_call>\n'
    '<tool_call>\n{"name": "weather", "arguments": {"city": "Lima"}}\n</tool_call>'
)
USER = {"role": "user", "content": "Weather in Oslo and Lima?"}


async def post(house: House, **fields: Any) -> Any:
    """A raw request."""
    body = {"model": MODEL, "messages": [USER], "tools": [WEATHER], **fields}
    return await house.http.post(PATH, content=msgspec.json.encode(body))


async def test_calls_whole(roomy: House) -> None:
    """Two calls with their text, as the SDK hands them on; the arguments are JSON as text."""
    roomy.says(CALLS)
    async with roomy.openai() as client:
        answer = await client.chat.completions.create(model=MODEL, messages=[USER], tools=[WEATHER])  # type: ignore[list-item]
    choice = answer.choices[0]
    assert choice.finish_reason == "tool_calls"
    assert choice.message.content == "Let me see."
    calls = choice.message.tool_calls or []
    assert [(call.type, call.function.name, json.loads(call.function.arguments)) for call in calls] == [  # type: ignore[union-attr]
        ("function", "weather", {"city": "Oslo"}),
        ("function", "weather", {"city": "Lima"}),
    ]
    assert len({call.id for call in calls}) == 2
    assert all(call.id.startswith("call_") for call in calls)
    openai_shape.chat((await post(roomy)).content)


async def test_calls_streamed(roomy: House) -> None:
    """The first delta of a call has index, id and name; the fragments of each index make its arguments."""
    roomy.says(CALLS)
    chunks = openai_shape.chat_chunks((await post(roomy, stream=True)).content)
    deltas = [choice["delta"] for chunk in chunks for choice in chunk["choices"]]
    assert "Let me see." == "".join(delta.get("content") or "" for delta in deltas)
    calls = [call for delta in deltas for call in delta.get("tool_calls", ())]
    named = [call for call in calls if "id" in call]
    assert [(call["index"], call["function"]["name"], call["type"]) for call in named] == [
        (0, "weather", "function"),
        (1, "weather", "function"),
    ]
    written = ["".join(call["function"]["arguments"] for call in calls if call["index"] == n) for n in (0, 1)]
    assert written == ['{"city": "Oslo"}', '{"city": "Lima"}']
    assert [chunk["choices"][0]["finish_reason"] for chunk in chunks if chunk["choices"]][-1] == "tool_calls"


async def test_a_round_trip_reaches_the_template(roomy: House) -> None:
    """The calls and their results stand in the next prompt, in the model's own way."""
    call = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": '{"city":"Oslo"}'}}
    roomy.says("Cold.")
    messages = [
        USER,
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c1", "content": [{"type": "text", "text": "4 degrees"}]},
    ]
    body = openai_shape.chat((await post(roomy, messages=messages)).content)
    assert body["choices"][0]["message"]["content"] == "Cold."
    prompt = roomy.model.tokenizer.decode(roomy.dispatcher.generations[0].request.prompt)
    for part in ('"city": "Oslo"', "4 degrees", "Of a city."):
        assert part in prompt


@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "weather"}}])
async def test_a_forced_call_is_begun_for_the_model(roomy: House, choice: Any) -> None:
    """What the model then writes is the rest of the call."""
    named = isinstance(choice, dict)
    rest = '{"city": "Oslo"}}' if named else 'weather", "arguments": {"city": "Oslo"}}'
    roomy.says(f"{rest}\n</tool_call>")
    body = openai_shape.chat((await post(roomy, tool_choice=choice)).content)
    (call,) = body["choices"][0]["message"]["tool_calls"]
    assert call["function"]["name"] == "weather"
    assert body["choices"][0]["finish_reason"] == "tool_calls"


async def test_reasoning_has_a_member_of_its_own(roomy: House) -> None:
    """``reasoning_content``, whole and streamed, and its tokens in the usage."""
    roomy.says("<think>hm</think>Yes")
    body = openai_shape.chat((await post(roomy)).content)
    message = body["choices"][0]["message"]
    assert (message["reasoning_content"], message["content"]) == ("hm", "Yes")
    assert body["usage"]["completion_tokens_details"]["reasoning_tokens"] > 0
    chunks = openai_shape.chat_chunks((await post(roomy, stream=True)).content)
    deltas = [choice["delta"] for chunk in chunks for choice in chunk["choices"]]
    assert "hm" == "".join(delta.get("reasoning_content", "") for delta in deltas)
    assert "Yes" == "".join(delta.get("content", "") for delta in deltas)


@pytest.mark.parametrize(
    ("fields", "where"),
    [
        ({"tool_choice": "required", "tools": []}, "tool_choice"),
        ({"tool_choice": {"type": "function", "function": {"name": "f"}}}, "tool_choice.function.name"),
        ({"tools": [WEATHER, WEATHER]}, "tools.1"),
        ({"tools": [{"type": "function", "function": {"name": "a b"}}]}, "tools.0.function.name"),
        ({"parallel_tool_calls": "no"}, "parallel_tool_calls"),
        ({"messages": [USER, {"role": "assistant", "tool_calls": [{"id": "1"}]}]}, "messages.1.tool_calls.0.function"),
        (
            {
                "messages": [
                    USER,
                    {"role": "assistant", "tool_calls": [{"id": "1", "function": {"name": "f", "arguments": "[]"}}]},
                ]
            },
            "messages.1.tool_calls.0.function.arguments",
        ),
        ({"messages": [USER, {"role": "tool", "tool_call_id": "9", "content": "x"}]}, "messages.1.tool_call_id"),
    ],
)
async def test_what_does_not_fit_names_its_place(roomy: House, fields: dict[str, Any], where: str) -> None:
    """400, and the parameter."""
    response = await post(roomy, **fields)
    error = response.json()["error"]
    assert (response.status_code, error["type"], error["param"]) == (400, "invalid_request_error", where)
