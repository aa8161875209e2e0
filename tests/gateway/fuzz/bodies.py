"""One good request, at least, for each operation and each form of its body: what the fuzzer spoils."""

import base64
import json
from typing import Any

ID = "twinfer.tiny-v1:0"
_SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
_TOOL_SPEC = {
    "toolSpec": {"name": "look_up", "description": "Looks.", "inputSchema": {"json": _SCHEMA}, "strict": True}
}
_FUNCTION = {"name": "look_up", "description": "Looks.", "parameters": _SCHEMA, "strict": True}
_TURNS: list[Any] = [
    {"role": "user", "content": [{"text": "Weather in 東京?"}, {"cachePoint": {"type": "default"}}]},
    {
        "role": "assistant",
        "content": [
            {"reasoningContent": {"reasoningText": {"text": "I should look."}}},
            {"text": "Let me see."},
            {"toolUse": {"toolUseId": "t1", "name": "look_up", "input": {"city": "東京"}}},
        ],
    },
    {
        "role": "user",
        "content": [
            {"toolResult": {"toolUseId": "t1", "content": [{"json": {"c": 4.5}}, {"text": "x"}], "status": "success"}},
            {"text": "So?"},
        ],
    },
]
CONVERSE: dict[str, Any] = {
    "messages": _TURNS,
    "system": [{"text": "Be brief."}],
    "inferenceConfig": {"maxTokens": 40, "temperature": 0.5, "topP": 0.9, "stopSequences": ["END"]},
    "toolConfig": {"tools": [_TOOL_SPEC], "toolChoice": {"auto": {}}},
    "additionalModelRequestFields": {"top_k": 3, "seed": 7, "logit_bias": {"4": -1}, "reasoning_effort": "low"},
    "additionalModelResponseFieldPaths": ["/stop_sequence"],
    "requestMetadata": {"who": "me"},
    "performanceConfig": {"latency": "optimized"},
    "serviceTier": {"type": "flex"},
}
_CHAT_TURNS: list[Any] = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": [{"type": "text", "text": "Weather in 東京?"}]},
    {
        "role": "assistant",
        "content": "Let me see.",
        "reasoning_content": "I should look.",
        "tool_calls": [{"id": "t1", "type": "function", "function": {"name": "look_up", "arguments": '{"city": "x"}'}}],
    },
    {"role": "tool", "tool_call_id": "t1", "content": "4 degrees"},
    {"role": "user", "content": "So?"},
]
CHAT: dict[str, Any] = {
    "model": ID,
    "messages": _CHAT_TURNS,
    "tools": [{"type": "function", "function": _FUNCTION}],
    "tool_choice": "auto",
    "parallel_tool_calls": False,
    "max_tokens": 40,
    "temperature": 0.5,
    "n": 2,
    "stop": ["END"],
    "logprobs": True,
    "top_logprobs": 2,
    "logit_bias": {"4": -1},
    "response_format": {"type": "text"},
    "stream_options": {"include_usage": True},
    "stream": True,
    "chat_template_kwargs": {"enable_thinking": False},
}
COMPLETION: dict[str, Any] = {
    "model": ID,
    "prompt": ["sea", [5, 6, 7]],
    "max_tokens": 8,
    "n": 2,
    "echo": True,
    "stop": "END",
    "stream": False,
}
RESPONSE: dict[str, Any] = {
    "model": ID,
    "instructions": "Be brief.",
    "input": [
        {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Weather?"}]},
        {"type": "reasoning", "id": "r1", "summary": [], "content": [{"type": "reasoning_text", "text": "Hm."}]},
        {"type": "function_call", "call_id": "t1", "name": "look_up", "arguments": '{"city": "x"}'},
        {"type": "function_call_output", "call_id": "t1", "output": "4 degrees"},
        {"role": "user", "content": "So?"},
    ],
    "tools": [{"type": "function", **_FUNCTION}],
    "tool_choice": "auto",
    "max_output_tokens": 40,
    "text": {"format": {"type": "text"}},
    "reasoning": {"effort": "low"},
    "metadata": {"who": "me"},
    "stream": True,
}
_NATIVE: list[tuple[str, dict[str, Any]]] = [
    ("meta.llama3-1-8b-instruct-v1:0", {"prompt": "hi 東京", "max_gen_len": 9, "temperature": 0.5, "top_p": 0.9}),
    ("mistral.mistral-7b-instruct-v0:2", {"prompt": "hi", "max_tokens": 9, "stop": ["END"], "top_k": 5}),
    ("mistral.mistral-large-2407-v1:0", {"messages": _CHAT_TURNS, "tools": CHAT["tools"], "tool_choice": "any"}),
    ("deepseek.r1-v1:0", {"prompt": "hi", "max_tokens": 9, "stop": ["END"]}),
    ("deepseek.v3-v1:0", {"messages": _CHAT_TURNS, "max_tokens": 9}),
    ("qwen.qwen3-32b-v1:0", {"messages": _CHAT_TURNS, "tools": CHAT["tools"], "n": 2}),
    ("openai.gpt-oss-20b-1:0", {"messages": _CHAT_TURNS, "max_completion_tokens": 9, "seed": 5}),
    ("amazon.nova-lite-v1:0", {key: CONVERSE[key] for key in ("messages", "system", "inferenceConfig", "toolConfig")}),
    (ID, {"prompt": "hi", "max_gen_len": 9}),
]
_LISTS = [
    "/foundation-models?byProvider=Twinfer&byOutputModality=TEXT&byInferenceType=ON_DEMAND",
    f"/foundation-models/{ID}",
    f"/foundation-model-availability/{ID}",
    "/inference-profiles?maxResults=1&nextToken=1&type=SYSTEM_DEFINED",
    f"/inference-profiles/us.{ID}",
    "/v1/models",
    f"/openai/v1/models/{ID}",
    "/v1/responses/resp_1",
    "/healthz",
    "/readyz",
    "/metrics",
]


def good_requests() -> list[tuple[str, str, Any]]:
    """Method, raw path with its query, and body."""
    found: list[tuple[str, str, Any]] = [("GET", path, None) for path in _LISTS]
    found.append(("DELETE", "/v1/responses/resp_1", None))
    for operation in ("converse", "converse-stream"):
        found += [("POST", f"/model/{ID}/{operation}", CONVERSE)] * 3
    for model, body in _NATIVE:
        for operation in ("invoke", "invoke-with-response-stream"):
            found.append(("POST", f"/model/{model}/{operation}", body))
        encoded = base64.b64encode(json.dumps(body).encode()).decode()
        found.append(("POST", f"/model/{model}/count-tokens", {"input": {"invokeModel": {"body": encoded}}}))
    found.append(("POST", f"/model/{ID}/count-tokens", {"input": {"converse": CONVERSE}}))
    for prefix in ("/v1", "/openai/v1"):
        for path, body in (("chat/completions", CHAT), ("completions", COMPLETION), ("responses", RESPONSE)):
            found += [("POST", f"{prefix}/{path}", {**body, "stream": streamed}) for streamed in (True, False)]
    return found
