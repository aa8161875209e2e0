from typing import Any

import pytest

from tests.gateway.house import an_answer
from twinfer.core.errors import InvalidRequest
from twinfer.gateway.dialects.native import Addressed, NativeRequest
from twinfer.gateway.dialects.native_text import read_deepseek, read_llama, read_mistral_text
from twinfer.gateway.dialects.reader import Reader
from twinfer.gateway.prepare import Options
from twinfer.gateway.text.content import TextDelta
from twinfer.gateway.text.conversation import RawPrompt

ADDRESSED = Addressed("a.model", "r", 0, streamed=True)
HELLO = (TextDelta("Hel"), TextDelta("lo"))


def chunks(request: NativeRequest) -> list[dict[str, Any]]:
    """Everything a stream says."""
    answer, pieces = an_answer(*HELLO)
    stream = request.stream(3)
    parts = [chunk for piece in pieces for chunk in stream.pieces([piece])]
    return [*stream.begin(), *parts, *stream.end([answer], 5)]


def test_llama_s_own_shape() -> None:
    """The prompt's tokens are told once, the answer's as they grow, the reason at the end."""
    request = read_llama(Reader({"prompt": "<|begin|>hi"}, ""), ADDRESSED)
    assert request.asked.prompt == RawPrompt("<|begin|>hi")
    assert request.asked.options == Options(temperature=0.5, top_p=0.9, max_tokens=512)
    names = ("generation", "prompt_token_count", "generation_token_count", "stop_reason")
    assert dict(zip(names, ("Hello", 3, 3, "stop"), strict=True)) == request.body([an_answer(*HELLO)[0]])
    assert chunks(request) == [
        dict(zip(names, row, strict=True))
        for row in (("Hel", 3, 1, None), ("lo", None, 2, None), ("", None, 3, "stop"))
    ]


def test_mistral_s_own_shape() -> None:
    """A list of one output."""
    fields = {"prompt": "<s>[INST]hi[/INST]", "max_tokens": 9, "stop": ["x"], "top_k": 5, "temperature": 0}
    request = read_mistral_text(Reader(fields, ""), ADDRESSED)
    assert request.asked.options == Options(max_tokens=9, stop=("x",), top_k=5, temperature=0.0)
    assert request.body([an_answer(*HELLO)[0]]) == {"outputs": [{"text": "Hello", "stop_reason": "stop"}]}
    assert chunks(request) == [
        {"outputs": [{"text": text, "stop_reason": reason}]}
        for text, reason in (("Hel", None), ("lo", None), ("", "stop"))
    ]


def test_deepseek_s_own_shape() -> None:
    """A list of one choice."""
    request = read_deepseek(Reader({"prompt": "hi<think>"}, ""), ADDRESSED)
    assert request.body([an_answer(*HELLO)[0]]) == {"choices": [{"text": "Hello", "stop_reason": "stop"}]}
    assert chunks(request)[0] == {"choices": [{"text": "Hel", "stop_reason": None}]}


def test_options_of_this_server_are_taken_too() -> None:
    """So that seeds and the like work through every door; a guardrail's details mean nothing without a guardrail."""
    fields = {"prompt": "hi", "seed": 5, "ignore_eos": True, "amazon-bedrock-guardrailConfig": {"tagSuffix": "x"}}
    options = read_llama(Reader(fields, ""), ADDRESSED).asked.options
    assert (options.seed, options.ignore_eos) == (5, True)


@pytest.mark.parametrize(
    ("read", "fields", "message"),
    [
        (read_llama, {}, r"required key \[prompt\] not found"),
        (read_llama, {"prompt": ""}, "length greater"),
        (read_llama, {"prompt": "a", "max_tokens": 5}, r"extraneous key \[max_tokens\]"),
        (read_llama, {"prompt": "a", "max_gen_len": 2049}, "'max_gen_len' failed.*less"),
        (read_llama, {"prompt": "a", "temperature": 1.1}, "'temperature' failed"),
        (read_llama, {"prompt": "a", "images": ["x"]}, "'images' failed"),
        (read_mistral_text, {"prompt": "a", "top_k": 201}, "'top_k' failed"),
        (read_mistral_text, {"prompt": "a", "stop": ["x"] * 11}, "'stop' failed"),
        (read_mistral_text, {"prompt": "a", "max_gen_len": 5}, r"extraneous key \[max_gen_len\]"),
        (read_deepseek, {"prompt": "a", "max_tokens": 32_769}, "'max_tokens' failed"),
    ],
)
def test_bounds_are_the_family_s(read: Any, fields: dict[str, Any], message: str) -> None:
    """As documented for each."""
    with pytest.raises(InvalidRequest, match=message):
        read(Reader(fields, ""), ADDRESSED)
