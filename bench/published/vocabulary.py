"""A tokenizer for a checkpoint of random weights: every token that it may draw is text, and every server cuts alike.

The model draws any of its tokens, so each has to be visible: what a server cannot show, no client can time. Words of
``twinfer.loadtest.words`` are one token each, with the space before them. Their merges go from left to right from that
space on, and no others exist: there is one way only to cut a text, whoever implements it.
"""

import json
import string
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from twinfer.loadtest.words import WORDS

SPACE = "\u0120"
"""How byte-level vocabularies write a space."""
END = "<|endoftext|>"
PIECES = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
"""Qwen2's way to cut a text before it is encoded; llama.cpp knows it by the name ``qwen2``."""


def merges(words: Iterable[str]) -> list[tuple[str, str]]:
    """Pairs to join, in order: a space and the first letter, then letter by letter."""
    steps = [(SPACE + word[:length], word[length]) for length in range(4) for word in words]
    return list(dict.fromkeys(steps))


def vocabulary(size: int, end: int, pairs: Iterable[tuple[str, str]]) -> dict[str, int]:
    """Token texts to ids: characters, what the pairs make, and made-up words for all the others.

    Args:
        size: of the model's vocabulary.
        end: the id that ends an answer.
        pairs: to be joined.
    """
    made = [*string.ascii_letters, *string.digits, *string.punctuation, SPACE, *(left + right for left, right in pairs)]
    tokens = [*made, *(f"{SPACE}w{number}" for number in range(len(made), size))]
    tokens[end] = END
    return {token: number for number, token in enumerate(tokens)}


def write_tokenizer(directory: Path, size: int, end: int) -> None:
    """Write ``tokenizer.json`` and ``tokenizer_config.json`` there."""
    pairs = merges(WORDS)
    model = {"type": "BPE", "vocab": vocabulary(size, end, pairs), "merges": [list(pair) for pair in pairs]}
    special = {"id": end, "content": END, "special": True, "normalized": False}
    cut = {"type": "Split", "pattern": {"Regex": PIECES}, "behavior": "Isolated", "invert": False}
    as_bytes = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": False}
    rules: dict[str, Any] = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [special | {"single_word": False, "lstrip": False, "rstrip": False}],
        "normalizer": None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [cut, as_bytes]},
        "post_processor": None,
        "decoder": as_bytes,
        "model": model,
    }
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": END,
        "add_bos_token": False,
        "clean_up_tokenization_spaces": False,
        "chat_template": "{% for message in messages %}{{ message['content'] }}{% endfor %}",
    }
    for name, content in (("tokenizer.json", rules), ("tokenizer_config.json", settings)):
        path, text = directory / name, json.dumps(content)
        if not path.exists() or path.read_text(encoding="utf-8") != text:  # what is made of it stays newer than it
            path.write_text(text, encoding="utf-8")
