"""One conversation through every door: the same tokens in, the same tokens out, and as many as were counted."""

import base64
from collections.abc import Mapping
from random import Random
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings

from tests.gateway.house import EOS, House
from tests.gateway.test_bedrock_count import conversations
from twinfer.core.request import GenerationRequest
from twinfer.gateway.fake import Script

pytestmark = pytest.mark.asyncio(loop_scope="module")

MODEL = "twinfer.tiny-v1:0"
ANSWERS = (
    "Hello 東京 🙂 world",
    "<think>\nI should say naïve.\n</think>\n\nNaïve.",
    '<think>Hm.</think>See. <tool_call>\n{"name": "x", "arguments": {"city": "東京"}}\n</tool_call>',
    'x", "arguments": {"a": ["é"]}}\n</tool_call>',
    ' {"b": 1}}\n</tool_call>',
)
REASONS = {"end_turn": "stop", "tool_use": "tool_calls", "max_tokens": "length", "malformed_tool_use": "stop"}


def chat_of(converse: Mapping[str, Any]) -> dict[str, Any]:
    """The same conversation and wishes as Chat Completions has them."""
    messages = [{"role": "system", "content": block["text"]} for block in converse["system"]]
    for message in converse["messages"]:
        messages += _turns(message)
    tools = [
        {
            "type": "function",
            "function": {
                "name": tool["toolSpec"]["name"],
                "description": tool["toolSpec"]["description"],
                "parameters": tool["toolSpec"]["inputSchema"]["json"],
            },
        }
        for tool in converse["toolConfig"]["tools"]
    ]
    choices: Mapping[str, Any] = {
        "auto": "auto",
        "any": "required",
        "tool": {"type": "function", "function": {"name": "x"}},
    }
    choice = choices[next(iter(converse["toolConfig"]["toolChoice"] or {"auto": {}}))]
    wishes = {"max_tokens": 30, "temperature": 0, "seed": 7}
    return {"model": MODEL, "messages": messages, "tools": tools, "tool_choice": choice, **wishes}


def _turns(message: Mapping[str, Any]) -> list[dict[str, Any]]:
    turns, said, calls = [], {"role": message["role"]}, []
    for block in message["content"]:
        ((kind, value),) = block.items()
        if kind == "text":
            said["content"] = value
        elif kind == "reasoningContent":
            said["reasoning_content"] = value["reasoningText"]["text"]
        elif kind == "toolUse":
            function = {"name": value["name"], "arguments": msgspec.json.encode(value["input"]).decode()}
            calls.append({"id": value["toolUseId"], "type": "function", "function": function})
        else:
            told = "\n".join(
                part["text"] if "text" in part else msgspec.json.encode(part["json"]).decode()
                for part in value["content"]
            )
            turns.append({"role": "tool", "tool_call_id": value["toolUseId"], "content": told})
    return [*turns, {**said, "tool_calls": calls} if calls else said]


def told_by_converse(body: Mapping[str, Any]) -> tuple[Any, ...]:
    """Thoughts, text, calls, why it ended, and the usage."""
    blocks = [next(iter(block.items())) for block in body["output"]["message"]["content"]]
    thoughts = "".join(value["reasoningText"]["text"] for kind, value in blocks if kind == "reasoningContent")
    text = "".join(value for kind, value in blocks if kind == "text")
    calls = [(value["name"], value["input"]) for kind, value in blocks if kind == "toolUse"]
    usage = body["usage"]
    return thoughts, text, calls, REASONS[body["stopReason"]], usage["inputTokens"], usage["outputTokens"]


def told_by_chat(body: Mapping[str, Any]) -> tuple[Any, ...]:
    """The same."""
    message, usage = body["choices"][0]["message"], body["usage"]
    calls = [
        (call["function"]["name"], msgspec.json.decode(call["function"]["arguments"]))
        for call in message.get("tool_calls") or ()
    ]
    thoughts, text = message.get("reasoning_content") or "", message["content"] or ""
    reason = body["choices"][0]["finish_reason"]
    return thoughts, text, calls, reason, usage["prompt_tokens"], usage["completion_tokens"]


def asked_of_workers(request: GenerationRequest) -> GenerationRequest:
    """Without what names the request."""
    return msgspec.structs.replace(request, request_id="")


@settings(
    max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(conversation=conversations())
async def test_every_door_gives_the_same_tokens(roomy: House, conversation: dict[str, Any]) -> None:
    """Converse, InvokeModel with either kind of messages, and Chat Completions; CountTokens knew how many."""
    ids = roomy.ids(Random(repr(conversation)).choice(ANSWERS))
    roomy.plays(Script([ids[:3], ids[3:], [EOS]]))
    roomy.dispatcher.generations.clear()
    config = {"maxTokens": 30, "temperature": 0}
    converse = {**conversation, "inferenceConfig": config, "additionalModelRequestFields": {"seed": 7}}
    nova, chat = {**conversation, "inferenceConfig": config}, chat_of(conversation)
    told = [
        told_by_converse(await post(roomy, f"/model/{MODEL}/converse", converse)),
        told_by_converse(await post(roomy, f"/model/{MODEL}/invoke", nova)),
        told_by_chat(await post(roomy, f"/model/{MODEL}/invoke", chat)),
        told_by_chat(await post(roomy, "/v1/chat/completions", chat)),
    ]
    assert [told[0]] * 4 == told
    by_converse, by_nova, *by_chat = [asked_of_workers(each.request) for each in roomy.dispatcher.generations]
    assert [by_converse] * 2 == by_chat
    assert by_converse.prompt == by_nova.prompt
    for counted in ({"converse": converse}, native(nova), native(chat)):
        body = await post(roomy, f"/model/{MODEL}/count-tokens", {"input": counted})
        assert body["inputTokens"] == told[0][4]


def native(body: Any) -> dict[str, Any]:
    """InvokeModel's body as CountTokens takes it."""
    return {"invokeModel": {"body": base64.b64encode(msgspec.json.encode(body)).decode()}}


async def post(house: House, path: str, body: Any) -> Any:
    """The body of an answer."""
    response = await house.http.post(path, content=msgspec.json.encode(body))
    assert response.status_code == 200, response.text
    return response.json()
