from typing import Any

import pytest

from tests.gateway.house import an_answer
from twinfer.core.errors import InvalidRequest
from twinfer.gateway.dialects.native import Addressed, NativeRequest
from twinfer.gateway.dialects.native_chat import read_chat_completions, read_mistral_chat
from twinfer.gateway.dialects.reader import Reader
from twinfer.gateway.text.content import Delta, ReasoningDelta, TextDelta, ToolCallDelta, ToolCallStart
from twinfer.gateway.text.conversation import Conversation, say

QWEN = Addressed("us.qwen.qwen3-32b-v1:0", "r", 5, streamed=False)
OSS = Addressed("openai.gpt-oss-20b-1:0", "r", 5, streamed=False)
CHAT = {"messages": [{"role": "user", "content": "hi"}]}
THOUGHT = (ReasoningDelta("h"), ReasoningDelta("m"), TextDelta("Yes"))
CALLED = (
    ToolCallStart("c1", "f"),
    ToolCallDelta('{"a"'),
    ToolCallDelta(":1}"),
    ToolCallStart("c2", "g"),
    ToolCallDelta("{}"),
)


def read(fields: dict[str, Any], addressed: Addressed = QWEN) -> NativeRequest:
    """Read a body of Chat Completions."""
    return read_chat_completions(Reader(fields, ""), addressed)


def deltas(request: NativeRequest, *content: Delta) -> list[dict[str, Any]]:
    """What a stream says of its one choice, without the heads."""
    answer, pieces = an_answer(*content)
    stream = request.stream(3)
    parts = [chunk for piece in pieces for chunk in stream.pieces([piece])]
    all_chunks = [*stream.begin(), *parts, *stream.end([answer], 5)]
    return [choice for chunk in all_chunks for choice in chunk["choices"]]


def test_a_completion_has_the_shape_of_chat_completions() -> None:
    """With usage, under the name the client used."""
    request = read(CHAT)
    assert request.asked.prompt == Conversation((say("user", "hi"),))
    assert request.body([an_answer(*THOUGHT)[0]]) == {
        "id": "chatcmpl-r",
        "object": "chat.completion",
        "created": 5,
        "model": "us.qwen.qwen3-32b-v1:0",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "Yes", "reasoning_content": "hm"},
                "finish_reason": "stop",
            }
        ],
        "usage": {
            "prompt_tokens": 3,
            "completion_tokens": 4,
            "total_tokens": 7,
            "prompt_tokens_details": {"cached_tokens": 0},
            "completion_tokens_details": {"reasoning_tokens": 0},
        },
    }


def test_gpt_oss_thinks_between_marks() -> None:
    """Its reasoning stands in the text, whole and streamed."""
    request = read(CHAT, OSS)
    said = "<reasoning>hm</reasoning>Yes"
    assert request.body([an_answer(*THOUGHT)[0]])["choices"][0]["message"]["content"] == said
    assert said == "".join(choice["delta"].get("content", "") for choice in deltas(request, *THOUGHT))
    cut_off = "".join(choice["delta"].get("content", "") for choice in deltas(request, *THOUGHT[:2]))
    assert cut_off == "<reasoning>hm</reasoning>"


def test_calls_are_numbered() -> None:
    """Whole, they are a list without text; streamed, a first delta names each."""
    functions = [{"name": "f", "arguments": '{"a":1}'}, {"name": "g", "arguments": "{}"}]
    calls = [{"id": f"c{n + 1}", "type": "function", "function": function} for n, function in enumerate(functions)]
    (choice,) = read(CHAT).body([an_answer(*CALLED)[0]])["choices"]
    assert choice == {
        "index": 0,
        "message": {"role": "assistant", "content": None, "tool_calls": calls},
        "finish_reason": "tool_calls",
    }
    sent = [choice["delta"] for choice in deltas(read(CHAT), *CALLED)]
    assert sent[0] == {"role": "assistant", "content": ""}
    assert [call["index"] for delta in sent[1:-1] for call in delta["tool_calls"]] == [0, 0, 0, 1, 1]
    assert [call["id"] for delta in sent[1:-1] for call in delta["tool_calls"] if "id" in call] == ["c1", "c2"]
    assert sent[-1] == {}


def test_the_last_chunk_says_why_and_how_much() -> None:
    """In one, because clients read no further than the reason."""
    answer, pieces = an_answer(*THOUGHT)
    stream = read({**CHAT, "stream": True}, Addressed("qwen.qwen3-32b", "r", 5, streamed=True)).stream(3)
    chunks = [*stream.begin(), *stream.pieces(pieces), *stream.end([answer], 5)]
    assert {"chat.completion.chunk"} == {chunk["object"] for chunk in chunks}
    assert [None] * 4 + ["stop"] == [chunk["choices"][0]["finish_reason"] for chunk in chunks]
    assert [chunk["usage"]["total_tokens"] for chunk in chunks if "usage" in chunk] == [7]


def test_mistral_s_own_form() -> None:
    """No head, no usage, and another name for the reason."""
    request = read_mistral_chat(Reader(CHAT, ""), Addressed("mistral.mistral-large-2407-v1:0", "r", 5, streamed=True))
    assert request.body([an_answer(TextDelta("Yes"))[0]]) == {
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "Yes"}, "stop_reason": "stop"}]
    }
    assert [choice["stop_reason"] for choice in deltas(request, TextDelta("Yes"))] == [None, None, "stop"]


def test_several_choices_end_together() -> None:
    """Each has its own content; one last chunk has all reasons."""
    request = read({**CHAT, "n": 2})
    answers = [an_answer(TextDelta(text), choice=number) for number, text in enumerate("ab")]
    stream = request.stream(3)
    pieces = [piece for _, found in answers for piece in found]
    assert [["a", 0], ["b", 1]] == [
        [choice["delta"]["content"], choice["index"]] for chunk in stream.pieces(pieces) for choice in chunk["choices"]
    ]
    (last,) = stream.end([answer for answer, _ in answers], 5)
    assert [(0, "stop"), (1, "stop")] == [(choice["index"], choice["finish_reason"]) for choice in last["choices"]]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, r"required key \[messages\] not found"),
        ({**CHAT, "model": "qwen.qwen3-14b"}, "model qwen.qwen3-14b is not the path's"),
        ({**CHAT, "stream": True}, "use InvokeModelWithResponseStream"),
        ({**CHAT, "logprobs": True}, "carry no logprobs"),
        ({**CHAT, "inferenceConfig": {"maxTokens": 0}}, "'inferenceConfig.maxTokens' failed"),
    ],
)
def test_what_cannot_be_answered_as_asked_is_refused(fields: dict[str, Any], message: str) -> None:
    """Model and operation are the path's."""
    with pytest.raises(InvalidRequest, match=message):
        read(fields)


@pytest.mark.parametrize(
    "name", ["qwen.qwen3-32b-v1:0", "qwen.qwen3-32b", "us.qwen.qwen3-32b", "invoke/qwen.qwen3-32b-v1:0"]
)
def test_a_body_may_name_the_path_s_model_in_any_spelling(name: str) -> None:
    """Clients of both endpoints send the same body."""
    assert read({**CHAT, "model": name}).asked.model == QWEN.model


def test_converse_s_options_are_read_too() -> None:
    """As AWS's own examples write them."""
    options = read({**CHAT, "temperature": 0.5, "inferenceConfig": {"maxTokens": 7}}).asked.options
    assert (options.temperature, options.max_tokens) == (0.5, 7)
