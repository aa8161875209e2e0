"""A schema through every door: what workers are told, what clients read, and what is refused before anything starts."""

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.gateway.house import House, chat_body, converse_body
from twinfer.core.request import Grammar
from twinfer.gateway.text.grammar_text import json_grammar
from twinfer.gateway.text.schema import check_schema

pytestmark = pytest.mark.asyncio(loop_scope="module")

MODEL = "twinfer.tiny-v1:0"
SCHEMA = {
    "type": "object",
    "properties": {"title": {"type": "string", "description": "A title."}, "n": {"type": "integer"}},
    "required": ["title", "n"],
    "additionalProperties": False,
}
BOUNDED = {"type": "object", "properties": {"n": {"type": "integer", "minimum": 1}}}
PLACE = "#/properties/n: the keyword 'minimum' is not supported"


def converse(schema: Any) -> tuple[str, dict[str, Any]]:
    """Converse's ``outputConfig``."""
    structure = {"jsonSchema": {"schema": json.dumps(schema), "name": "it", "description": "What is wanted."}}
    body = converse_body(outputConfig={"textFormat": {"type": "json_schema", "structure": structure}})
    return f"/model/{MODEL}/converse", body


def response_format(schema: Any) -> dict[str, Any]:
    """OpenAI's."""
    return {"type": "json_schema", "json_schema": {"name": "it", "schema": schema, "strict": True}}


def chat(schema: Any) -> tuple[str, dict[str, Any]]:
    """Chat Completions."""
    return "/v1/chat/completions", chat_body(MODEL, response_format=response_format(schema))


def invoke(schema: Any) -> tuple[str, dict[str, Any]]:
    """InvokeModel's body of the open-weight families."""
    body = {"messages": [{"role": "user", "content": "hi"}], "response_format": response_format(schema)}
    return "/model/qwen.qwen3-32b-v1:0/invoke", body


def responses(schema: Any) -> tuple[str, dict[str, Any]]:
    """Responses."""
    wanted = {"type": "json_schema", "name": "it", "schema": schema, "strict": True}
    return "/v1/responses", {"model": MODEL, "input": "hi", "text": {"format": wanted}}


def strict_tool(schema: Any) -> tuple[str, dict[str, Any]]:
    """A strict tool, which must be called."""
    spec = {"toolSpec": {"name": "it", "inputSchema": {"json": schema}, "strict": True}}
    body = converse_body(toolConfig={"tools": [spec], "toolChoice": {"any": {}}})
    return f"/model/{MODEL}/converse", body


def strict_function(schema: Any) -> tuple[str, dict[str, Any]]:
    """The same to OpenAI's clients."""
    function = {"name": "it", "parameters": schema, "strict": True}
    return "/v1/chat/completions", chat_body(MODEL, tools=[{"type": "function", "function": function}])


Door = Callable[[Any], tuple[str, dict[str, Any]]]
TEXT_DOORS: list[Door] = [converse, chat, responses]
DOORS: list[Door] = [*TEXT_DOORS, strict_tool, strict_function]


@pytest.mark.parametrize("door", TEXT_DOORS)
async def test_workers_are_told_the_grammar(house: House, door: Door) -> None:
    """The same one through every door, with the model's own ends."""
    path, body = door(SCHEMA)
    assert 200 == (await house.http.post(path, json=body)).status_code
    [generation] = house.dispatcher.generations
    assert Grammar(json_grammar(check_schema(SCHEMA, "")), house.model.eos_token_ids) == _without_style(generation)


def _without_style(generation: Any) -> Grammar:
    """Its grammar, with rules that only rename something put in place."""
    source = generation.request.grammar.source.replace("start:  said\nTEXT: /(?s:.*)/\nsaid: ", "start: ")
    return Grammar(source, generation.request.grammar.end_ids)


async def test_invoke_model(wild: House) -> None:
    """Open-weight families take ``response_format``, as AWS's own example has it."""
    wild.says('{"title": "a", "n": 1}')
    path, body = invoke(SCHEMA)
    answer = await wild.http.post(path, json=body)
    assert '{"title": "a", "n": 1}' == answer.json()["choices"][0]["message"]["content"]
    assert wild.dispatcher.generations[0].request.grammar is not None


@pytest.mark.parametrize("door", DOORS)
async def test_unsupported_keywords_are_refused_at_once(roomy: House, door: Door) -> None:
    """400, with the keyword and its place; nothing is started."""
    path, body = door(BOUNDED)
    answer = await roomy.http.post(path, json=body)
    said = answer.json()
    assert 400 == answer.status_code
    assert PLACE in (said["message"] if "message" in said else said["error"]["message"])
    assert roomy.dispatcher.generations == []


async def test_boto3_reads_the_exception(house: House) -> None:
    """It is modelled."""
    client, (_, body) = house.boto3(), converse(BOUNDED)
    with pytest.raises(client.exceptions.ValidationException, match="'minimum' is not supported"):
        await asyncio.to_thread(lambda: client.converse(modelId=MODEL, **body))


@pytest.mark.parametrize("schema", ["{", "[]", '{"type": "object"} x', '"text"'])
async def test_a_schema_that_is_no_json_object(house: House, schema: str) -> None:
    """Converse's is JSON in a string."""
    path, body = converse(SCHEMA)
    body["outputConfig"]["textFormat"]["structure"]["jsonSchema"]["schema"] = schema
    answer = await house.http.post(path, json=body)
    assert (400, True) == (answer.status_code, "outputConfig.textFormat" in answer.json()["message"])


async def test_a_cut_answer_is_no_error(house: House) -> None:
    """``max_tokens``, and the beginning of the JSON."""
    house.says('{"title": "a long title"}')
    path, body = converse(SCHEMA)
    answer = (await house.http.post(path, json={**body, "inferenceConfig": {"maxTokens": 4}})).json()
    assert "max_tokens" == answer["stopReason"]
    assert '{"title": "a long title"}'.startswith(answer["output"]["message"]["content"][0]["text"])


async def test_the_openai_sdk_parses_what_it_asked_for(house: House) -> None:
    """Its own helper sends the schema of a class and makes an object of the answer."""
    from pydantic import BaseModel

    class Summary(BaseModel):
        """What is wanted."""

        title: str
        tags: list[str]
        note: str | None

    house.says('{"title": "a", "tags": ["b"], "note": null}')
    async with house.openai() as client:
        answer = await client.chat.completions.parse(
            model=MODEL, messages=[{"role": "user", "content": "hi"}], response_format=Summary
        )
        assert Summary(title="a", tags=["b"], note=None) == answer.choices[0].message.parsed
        house.says('{"title": "a", "tags": [], "note": "c"}')
        response = await client.responses.parse(model=MODEL, input="hi", text_format=Summary)
    assert Summary(title="a", tags=[], note="c") == response.output_parsed
    assert [True, True] == [bool(each.request.grammar) for each in house.dispatcher.generations]


async def test_any_object(house: House) -> None:
    """OpenAI's ``json_object`` needs no schema."""
    body = chat_body(MODEL, response_format={"type": "json_object"})
    assert 200 == (await house.http.post("/v1/chat/completions", json=body)).status_code
    grammar = house.dispatcher.generations[0].request.grammar
    assert grammar is not None
    assert '{"type": "object"' in grammar.source


async def test_a_format_is_echoed_by_responses(house: House) -> None:
    """As it was written."""
    path, body = responses(SCHEMA)
    answer = (await house.http.post(path, json=body)).json()
    assert body["text"]["format"] == answer["text"]["format"]


@pytest.mark.parametrize(("schema", "status"), [(SCHEMA, 200), (BOUNDED, 400)])
async def test_counting_reads_schemas_too(house: House, schema: Any, status: int) -> None:
    """A bad one is refused as it would be by the operation itself."""
    _, body = converse(schema)
    answer = await house.http.post(f"/model/{MODEL}/count-tokens", json={"input": {"converse": body}})
    assert status == answer.status_code
