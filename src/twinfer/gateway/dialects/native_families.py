"""Which family's bodies a model takes: by the provider in the id that the client used, then by the body's shape."""

from collections.abc import Mapping

from twinfer.gateway.dialects.native import ReadNative
from twinfer.gateway.dialects.native_chat import read_chat_completions, read_mistral_chat
from twinfer.gateway.dialects.native_nova import read_nova
from twinfer.gateway.dialects.native_text import read_deepseek, read_llama, read_mistral_text
from twinfer.gateway.dialects.reader import Reader
from twinfer.gateway.names import plain_name

# The first whose key is in the body; the first one complains where none is.
_PROVIDERS: Mapping[str, tuple[tuple[str, ReadNative], ...]] = {
    "meta": (("prompt", read_llama), ("messages", read_chat_completions)),
    "mistral": (("prompt", read_mistral_text), ("messages", read_mistral_chat)),
    "deepseek": (("messages", read_chat_completions), ("max_gen_len", read_llama), ("prompt", read_deepseek)),
    "qwen": (("messages", read_chat_completions), ("prompt", read_llama)),
    "amazon": (("messages", read_nova),),
    "openai": (("messages", read_chat_completions),),
    "google": (("messages", read_chat_completions),),
    "nvidia": (("messages", read_chat_completions),),
    "minimax": (("messages", read_chat_completions),),
    "moonshot": (("messages", read_chat_completions),),
    "moonshotai": (("messages", read_chat_completions),),
    "zai": (("messages", read_chat_completions),),
}


def choose_family(model: str, fields: Reader) -> ReadNative:
    """How to read a body that was sent to a model of this name."""
    provider = plain_name(model).partition(".")[0]
    kinds = _PROVIDERS.get(provider)
    if kinds is None:
        return _by_shape(fields)
    return next((read for key, read in kinds if fields.get(key) is not None), kinds[0][1])


def _by_shape(fields: Reader) -> ReadNative:
    """For models of providers that AWS does not have."""
    body = fields.mapping()
    if body.get("messages") is None:
        return read_mistral_text if "max_tokens" in body else read_llama
    return read_nova if _speaks_in_blocks(body["messages"]) else read_chat_completions


def _speaks_in_blocks(messages: object) -> bool:
    """Whether a turn's content is made of blocks without a type, as Nova's is and Chat Completions' is not."""
    turns = messages if isinstance(messages, list) else []
    contents = [turn.get("content") for turn in turns if isinstance(turn, dict)]
    blocks = [block for content in contents if isinstance(content, list) for block in content]
    return any(isinstance(block, dict) and "type" not in block for block in blocks)
