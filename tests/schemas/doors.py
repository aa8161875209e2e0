"""How a schema is asked for, and where the answer is."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

MODEL = "twinfer.demo-v1:0"
_USER = "def describe(value):\n    return "


@dataclass(frozen=True, slots=True)
class Asked:
    """A request, and how to read its answer.

    Attributes:
        read: the answer as text, and whether it was cut off.
    """

    path: str
    body: dict[str, Any]
    read: Callable[[dict[str, Any]], tuple[str, bool]]


def converse(schema: Any, max_tokens: int, seed: int) -> Asked:
    """Bedrock's ``outputConfig``."""
    structure = {"jsonSchema": {"schema": json.dumps(schema), "name": "it"}}
    body = _converse_body(max_tokens, seed)
    body["outputConfig"] = {"textFormat": {"type": "json_schema", "structure": structure}}
    return Asked(f"/model/{MODEL}/converse", body, _converse_text)


def tool(schema: Any, max_tokens: int, seed: int) -> Asked:
    """Bedrock's strict tool, which must be called."""
    spec = {"name": "describe", "inputSchema": {"json": schema}, "strict": True}
    body = _converse_body(max_tokens, seed)
    body["toolConfig"] = {"tools": [{"toolSpec": spec}], "toolChoice": {"tool": {"name": "describe"}}}
    return Asked(f"/model/{MODEL}/converse", body, _converse_call)


def chat(schema: Any, max_tokens: int, seed: int) -> Asked:
    """OpenAI's ``response_format``."""
    body = {
        "model": MODEL,
        "messages": [{"role": "user", "content": _USER}],
        "max_tokens": max_tokens,
        "temperature": 1.0,
        "seed": seed,
        "response_format": {"type": "json_schema", "json_schema": {"name": "it", "schema": schema, "strict": True}},
    }
    return Asked("/v1/chat/completions", body, _chat_text)


DOORS = (converse, chat, tool)


def _converse_body(max_tokens: int, seed: int) -> dict[str, Any]:
    return {
        "messages": [{"role": "user", "content": [{"text": _USER}]}],
        "inferenceConfig": {"maxTokens": max_tokens, "temperature": 1.0},
        "additionalModelRequestFields": {"seed": seed},
    }


def _converse_text(answer: dict[str, Any]) -> tuple[str, bool]:
    blocks = answer["output"]["message"]["content"]
    return "".join(block["text"] for block in blocks), answer["stopReason"] == "max_tokens"


def _converse_call(answer: dict[str, Any]) -> tuple[str, bool]:
    calls = [block["toolUse"] for block in answer["output"]["message"]["content"] if "toolUse" in block]
    return json.dumps(calls[0]["input"]) if calls else "", answer["stopReason"] == "max_tokens"


def _chat_text(answer: dict[str, Any]) -> tuple[str, bool]:
    [choice] = answer["choices"]
    return choice["message"]["content"] or "", choice["finish_reason"] == "length"
