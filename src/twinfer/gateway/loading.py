"""Reads what the gateway needs of a checkpoint: tokenizer, template, limits and defaults. No weights."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from twinfer.core.config import ModelConfig
from twinfer.core.errors import CheckpointError
from twinfer.core.ids import ModelId
from twinfer.gateway.grammars import Grammars
from twinfer.gateway.models import SamplingDefaults, ServedModel
from twinfer.gateway.text.chat import ChatTemplate
from twinfer.gateway.text.manner import Manner, detect
from twinfer.gateway.text.think import OPEN
from twinfer.gateway.text.tokenizer import Tokenizer
from twinfer.grammar.vocabulary import load_vocabulary

_MAX_NAME = 20
"""Characters Bedrock allows in a model's and a provider's name."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What an engine allows where it is not the checkpoint that decides, as with emulated ones; 0 leaves it open."""

    max_context_tokens: int = 0
    vocab_size: int = 0


def load_model(config: ModelConfig, directory: Path, limits: Limits | None = None) -> ServedModel:
    """Make a served model of a directory in Hugging Face format.

    Reads ``tokenizer.json`` and, where present, ``tokenizer_config.json``, ``chat_template.jinja``,
    ``special_tokens_map.json``, ``config.json`` and ``generation_config.json``.

    Raises:
        CheckpointError: a file is missing, broken, or says too little.
    """
    limits = limits or Limits()
    tokenizer = Tokenizer.from_file(directory / "tokenizer.json")
    words = _read(directory / "special_tokens_map.json") | _read(directory / "tokenizer_config.json")
    shape = _read(directory / "config.json")
    shape = shape | shape.get("text_config", {})
    generation = _read(directory / "generation_config.json")
    special = _special_tokens(words)
    template, tool_template = _templates(directory, words, special)
    vocab_size = limits.vocab_size or int(shape.get("vocab_size", tokenizer.num_tokens))
    vocabulary = load_vocabulary(directory, vocab_size)
    provider, rest = config.id.split(".", 1) if "." in config.id else ("", config.id)
    return ServedModel(
        id=ModelId(config.id),
        name=(config.name or rest)[:_MAX_NAME],
        provider=(config.provider or provider or "Twinfer")[:_MAX_NAME],
        aliases=config.aliases,
        tokenizer=tokenizer,
        template=template,
        max_context_tokens=_context(config, limits, shape, directory),
        vocab_size=vocab_size,
        eos_token_ids=_eos_token_ids(generation, shape, tokenizer, special),
        created=int(time.time()),
        defaults=_defaults(generation, directory),
        tool_template=tool_template,
        manner=_manner(config, tool_template or template, tokenizer),
        grammars=None if vocabulary is None else Grammars(vocabulary),
    )


def _read(path: Path) -> dict[str, Any]:
    """A JSON object; empty where there is no file."""
    if not path.is_file():
        return {}
    try:
        return msgspec.json.decode(path.read_bytes(), type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{path} is not a JSON object: {error}") from error


def _special_tokens(words: Mapping[str, Any]) -> dict[str, str]:
    """Special tokens by name, such as ``bos_token``; written as text or as an object with its ``content``."""
    tokens: dict[str, str] = {}
    for name, value in words.items():
        text = value.get("content") if isinstance(value, dict) else value
        if name.endswith("_token") and isinstance(text, str):
            tokens[name] = text
    return tokens


def _templates(
    directory: Path, words: Mapping[str, Any], special: Mapping[str, str]
) -> tuple[ChatTemplate | None, ChatTemplate | None]:
    """The chat template, and the one for conversations with tools, if there is one of its own.

    The file of its own wins over the tokenizer's configuration, and ``default`` among several named ones.
    """
    path = directory / "chat_template.jinja"
    source = path.read_text() if path.is_file() else words.get("chat_template")
    with_tools = None
    if isinstance(source, list):
        named = {entry["name"]: entry["template"] for entry in source}
        with_tools = named.get("tool_use")
        source = named.get("default") or next(iter(named.values()), None)
    return _template(source, special), _template(with_tools, special)


def _template(source: str | None, special: Mapping[str, str]) -> ChatTemplate | None:
    return None if source is None else ChatTemplate(source, special)


def _manner(config: ModelConfig, template: ChatTemplate | None, tokenizer: Tokenizer) -> Manner:
    source = "" if template is None else template.source
    return detect(config.tool_format, config.reasoning_format, source, tokenizer.id_of(OPEN) is not None)


def _context(config: ModelConfig, limits: Limits, shape: Mapping[str, Any], directory: Path) -> int:
    """The smallest of the bounds that are set."""
    engine = limits.max_context_tokens or int(shape.get("max_position_embeddings") or 0)
    bounds = [bound for bound in (config.max_context_tokens, engine) if bound]
    if not bounds:
        raise CheckpointError(
            f"{directory} does not say how long a context may be: set max_context_tokens of model {config.id}"
        )
    return min(bounds)


def _eos_token_ids(
    generation: Mapping[str, Any], shape: Mapping[str, Any], tokenizer: Tokenizer, special: Mapping[str, str]
) -> tuple[int, ...]:
    """What ends an answer, by the first of the files that says so."""
    found = generation.get("eos_token_id", shape.get("eos_token_id"))
    if found is None:
        found = tokenizer.id_of(special.get("eos_token", ""))
    ids = found if isinstance(found, list) else [found]
    return tuple(int(token_id) for token_id in ids if token_id is not None)


def _defaults(generation: Mapping[str, Any], directory: Path) -> SamplingDefaults:
    said = {name: generation[name] for name in SamplingDefaults.__struct_fields__ if generation.get(name) is not None}
    try:
        return msgspec.convert(said, SamplingDefaults)
    except msgspec.ValidationError as error:
        raise CheckpointError(f"{directory / 'generation_config.json'} has a default out of place: {error}") from error
