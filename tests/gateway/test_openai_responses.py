"""Responses as the openai SDK and its types see them."""

from typing import Any

import msgspec
import openai
import pytest

from tests.gateway import openai_shape
from tests.gateway.house import House
from twinfer.core.errors import EngineFailure
from twinfer.gateway.fake import Script

pytestmark = pytest.mark.asyncio(loop_scope="module")

MODEL = "twinfer.tiny-v1:0"
PATH = "/v1/responses"
WEATHER: Any = {"type": "function", "name": "weather", "parameters": {"type": "object"}, "strict": False}
CALL = '<tool_call>\n{"name": "weather", "arguments": {"city": "Oslo"}}\n</tool_call>'


async def post(house: House, **fields: Any) -> Any:
    """A raw request."""
    return await house.http.post(PATH, content=msgspec.json.encode({"model": MODEL, "input": "hi", **fields}))


@pytest.mark.parametrize("prefix", ["/v1", "/openai/v1"])
async def test_a_response(house: House, prefix: str) -> None:
    """One message, its text, and the usage with cached tokens as a part of the input's."""
    house.says("Hello world", cached_tokens=2)
    async with house.openai(prefix) as client:
        answer = await client.responses.create(model=MODEL, input="hi", instructions="Be brief.")
    assert (answer.object, answer.status, answer.output_text) == ("response", "completed", "Hello world")
    assert answer.instructions == "Be brief."
    usage = answer.usage
    assert usage is not None
    assert usage.input_tokens_details.cached_tokens == 2
    assert usage.total_tokens == usage.input_tokens + usage.output_tokens
    openai_shape.response((await post(house)).content)


async def test_events(roomy: House) -> None:
    """Thought, text and call are items one after the other; the last event holds the response that is whole."""
    roomy.says(f"<think>hm</think>Let me see.{CALL}")
    events = openai_shape.response_events((await post(roomy, stream=True, tools=[WEATHER])).content)
    kinds = [event["type"].removeprefix("response.") for event in events]
    deltas = ("reasoning_text.delta", "output_text.delta", "function_call_arguments.delta")
    assert [kind for number, kind in enumerate(kinds) if kind not in deltas or kinds[number - 1] != kind] == [
        "created",
        "in_progress",
        "output_item.added",
        "content_part.added",
        "reasoning_text.delta",
        "reasoning_text.done",
        "content_part.done",
        "output_item.done",
        "output_item.added",
        "content_part.added",
        "output_text.delta",
        "output_text.done",
        "content_part.done",
        "output_item.done",
        "output_item.added",
        "function_call_arguments.delta",
        "function_call_arguments.done",
        "output_item.done",
        "completed",
    ]
    done = [event["item"] for event in events if event["type"] == "response.output_item.done"]
    assert done == events[-1]["response"]["output"]
    assert [item["type"] for item in done] == ["reasoning", "message", "function_call"]
    assert msgspec.json.decode(done[2]["arguments"]) == {"city": "Oslo"}
    assert [event["output_index"] for event in events if event["type"] == "response.output_item.added"] == [0, 1, 2]
    whole = openai_shape.response((await post(roomy, tools=[WEATHER])).content)
    assert [item["type"] for item in whole["output"]] == ["reasoning", "message", "function_call"]


async def test_a_response_tells_how_it_was_asked(roomy: House) -> None:
    """As it was understood; members that were left out have their defaults."""
    choice = {"type": "function", "name": "weather"}
    asked = {"metadata": {"who": "me"}, "tools": [{"type": "function", "name": "weather"}], "tool_choice": choice}
    body = openai_shape.response((await post(roomy, **asked, instructions="Be brief.", temperature=1)).content)
    assert [body[name] for name in ("metadata", "tool_choice", "instructions", "temperature", "truncation")] == [
        {"who": "me"},
        choice,
        "Be brief.",
        1,
        "disabled",
    ]
    parameters = {"type": "object", "properties": {}}
    said = {"type": "function", "name": "weather", "description": None, "parameters": parameters, "strict": False}
    assert body["tools"] == [said]


async def test_the_sdk_puts_a_stream_together(roomy: House) -> None:
    """Its own accumulator ends with the same text."""
    roomy.says("Hello world")
    async with roomy.openai() as client, client.responses.stream(model=MODEL, input="hi") as events:
        text = "".join([event.delta async for event in events if event.type == "response.output_text.delta"])
        final = await events.get_final_response()
    assert text == final.output_text == "Hello world"


async def test_a_round_trip_reaches_the_template(roomy: House) -> None:
    """Items of earlier output come back as input: thought, call and result stand in the prompt."""
    roomy.says("Cold.")
    items = [
        {"role": "user", "content": [{"type": "input_text", "text": "Weather in Oslo?"}]},
        {"type": "reasoning", "id": "rs_1", "summary": [], "content": [{"type": "reasoning_text", "text": "hm"}]},
        {"type": "function_call", "call_id": "c1", "name": "weather", "arguments": '{"city":"Oslo"}'},
        {"type": "function_call_output", "call_id": "c1", "output": "4 degrees"},
    ]
    body = openai_shape.response((await post(roomy, input=items, tools=[WEATHER])).content)
    assert body["output"][0]["content"][0]["text"] == "Cold."
    prompt = roomy.model.tokenizer.decode(roomy.dispatcher.generations[0].request.prompt)
    for part in ("Weather in Oslo?", '"city": "Oslo"', "4 degrees"):
        assert part in prompt


async def test_an_answer_cut_short_is_incomplete(house: House) -> None:
    """With the reason, whole and streamed."""
    house.says("Hello world")
    body = openai_shape.response((await post(house, max_output_tokens=1)).content)
    assert (body["status"], body["incomplete_details"]) == ("incomplete", {"reason": "max_output_tokens"})
    events = openai_shape.response_events((await post(house, max_output_tokens=1, stream=True)).content)
    assert events[-1]["type"] == "response.incomplete"


async def test_a_failure_in_the_stream(house: House) -> None:
    """Its last event says that it failed, and the connection breaks."""
    house.plays(Script([house.ids("Hello")], failure=EngineFailure("worker decode-0 failed")))
    async with house.openai() as client:
        events = await client.responses.create(model=MODEL, input="hi", stream=True)
        kinds = []

        async def read() -> None:
            async for event in events:
                kinds.append(event.type)

        with pytest.raises(openai.APIConnectionError):
            await read()
    assert kinds[-1] == "response.failed"


async def test_nothing_is_stored(house: House) -> None:
    """404 for any id, to read and to delete."""
    async with house.openai() as client:
        with pytest.raises(openai.NotFoundError, match="keeps none"):
            await client.responses.retrieve("resp_1")
        with pytest.raises(openai.NotFoundError, match="keeps none"):
            await client.responses.delete("resp_1")


@pytest.mark.parametrize(
    ("fields", "where"),
    [
        ({"input": None}, "input"),
        ({"input": ""}, "input"),
        ({"input": [{"type": "web_search_call"}]}, "input.0.type"),
        ({"input": [{"role": "user", "content": [{"type": "input_image"}]}]}, "input.0.content.0.type"),
        ({"previous_response_id": "resp_1"}, "previous_response_id"),
        ({"conversation": "conv_1"}, "conversation"),
        ({"background": True}, "background"),
        ({"text": {"format": {"type": "json_schema", "name": "x", "schema": {"not": {}}}}}, "text.format.schema"),
        ({"tools": [{"type": "web_search"}]}, "tools.0.type"),
        ({"tools": [WEATHER, WEATHER]}, "tools.1"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"n": 2}, "n"),
        ({"metadata": {"who": []}}, "metadata.who"),
        ({"metadata": {"w" * 65: "me"}}, "metadata"),
        ({"truncation": "maybe"}, "truncation"),
        ({"max_output_tokens": 0}, "max_output_tokens"),
        ({"temperature": 3}, "temperature"),
    ],
)
async def test_every_complaint_names_its_place(house: House, fields: dict[str, Any], where: str) -> None:
    """400, and the parameter."""
    response = await post(house, **fields)
    error = response.json()["error"]
    assert (response.status_code, error["type"], error["param"]) == (400, "invalid_request_error", where)
