from typing import Any

import pytest

from twinfer.gateway.dialects.native import ReadNative
from twinfer.gateway.dialects.native_chat import read_chat_completions, read_mistral_chat
from twinfer.gateway.dialects.native_families import choose_family
from twinfer.gateway.dialects.native_nova import read_nova
from twinfer.gateway.dialects.native_text import read_deepseek, read_llama, read_mistral_text
from twinfer.gateway.dialects.reader import Reader

PROMPT: dict[str, Any] = {"prompt": "hi"}
CHAT: dict[str, Any] = {"messages": [{"role": "user", "content": [{"type": "text", "text": "hi"}]}]}
BLOCKS: dict[str, Any] = {"messages": [{"role": "user", "content": [{"text": "hi"}]}]}


@pytest.mark.parametrize(
    ("model", "body", "family"),
    [
        ("meta.llama3-1-8b-instruct-v1:0", PROMPT, read_llama),
        ("arn:aws:bedrock:us-east-1:1:inference-profile/us.meta.llama3-3-70b-instruct-v1:0", PROMPT, read_llama),
        ("meta.llama3-1-8b-instruct-v1:0", {}, read_llama),
        ("meta.llama3-1-8b-instruct-v1:0", CHAT, read_chat_completions),
        ("mistral.mistral-7b-instruct-v0:2", PROMPT, read_mistral_text),
        ("mistral.mistral-large-2407-v1:0", CHAT, read_mistral_chat),
        ("deepseek.r1-v1:0", PROMPT, read_deepseek),
        ("deepseek.r1-v1:0", PROMPT | {"max_gen_len": 5}, read_llama),
        ("deepseek.v3-v1:0", CHAT, read_chat_completions),
        ("qwen.qwen3-32b-v1:0", CHAT, read_chat_completions),
        ("qwen.qwen3-32b-v1:0", PROMPT, read_llama),
        ("openai.gpt-oss-20b-1:0", {}, read_chat_completions),
        ("eu.amazon.nova-lite-v1:0", BLOCKS, read_nova),
        ("twinfer.demo-v1:0", PROMPT, read_llama),
        ("twinfer.demo-v1:0", PROMPT | {"max_tokens": 5}, read_mistral_text),
        ("twinfer.demo-v1:0", CHAT, read_chat_completions),
        ("twinfer.demo-v1:0", BLOCKS, read_nova),
        ("twinfer.demo-v1:0", {"messages": "?"}, read_chat_completions),
        ("twinfer.demo-v1:0", {}, read_llama),
    ],
)
def test_the_provider_decides_and_then_the_shape(model: str, body: dict[str, Any], family: ReadNative) -> None:
    """Under whatever name the client calls the model; providers of our own take any family's body."""
    assert family is choose_family(model, Reader(body, ""))
