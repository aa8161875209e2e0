"""Whether other weights may take the place of those that are served, while gateways keep what they have loaded."""

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from twinfer.core.config import ModelConfig
from twinfer.core.errors import ConfigError
from twinfer.gateway.loading import load_model
from twinfer.gateway.text.chat import ChatTemplate
from twinfer.model.checkpoint import read_checkpoint

_FREE = ("dtype",)
"""Fields of a model's shape in which the new checkpoint may differ."""
_TOKENIZER = "tokenizer.json"


def check_successor(model: ModelConfig, old: Path, new: Path, *, computes: bool) -> None:
    """See that a checkpoint is whole, and differs from the one that is served in its weights alone.

    Gateways keep tokenizer, template, limits and defaults of the old one, so these have to be the same.

    Args:
        computes: some worker loads the weights; emulated ones need none.

    Raises:
        ConfigError: what is different.
        CheckpointError: what is broken or missing.
    """
    differences = [*_in_text(model, old, new), *(_in_shape(old, new) if computes else ())]
    if differences:
        raise ConfigError(
            f"{new} cannot take the place of {old} while that is served: {', '.join(differences)} differ; start the "
            "deployment again with it"
        )


def _in_text(model: ModelConfig, old: Path, new: Path) -> Iterator[str]:
    ours, theirs = load_model(model, old), load_model(model, new)
    if (old / _TOKENIZER).read_bytes() != (new / _TOKENIZER).read_bytes():
        yield "the tokenizers"
    for what, before, after in (
        ("the chat templates", _words(ours.template), _words(theirs.template)),
        ("the chat templates for tools", _words(ours.tool_template), _words(theirs.tool_template)),
        ("the tokens that end an answer", ours.eos_token_ids, theirs.eos_token_ids),
        ("the sampling defaults", ours.defaults, theirs.defaults),
        ("the longest contexts", ours.max_context_tokens, theirs.max_context_tokens),
        ("the vocabulary's sizes", ours.vocab_size, theirs.vocab_size),
    ):
        if before != after:
            yield what


def _words(template: ChatTemplate | None) -> tuple[str, dict[str, str]] | None:
    """All that its prompts depend on."""
    return None if template is None else (template.source, template.variables)


def _in_shape(old: Path, new: Path) -> list[str]:
    ours, theirs = (asdict(read_checkpoint(directory).spec) for directory in (old, new))
    return [f"`{name}` in config.json" for name in ours if name not in _FREE and ours[name] != theirs[name]]
