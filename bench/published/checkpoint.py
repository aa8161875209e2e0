"""The model of the benchmark: a checkpoint's random weights with a tokenizer that covers its whole vocabulary."""

import json
import shutil
from pathlib import Path

from bench.published.vocabulary import write_tokenizer
from twinfer.core.errors import ConfigError


def with_vocabulary(source: Path, directory: Path) -> Path:
    """The checkpoint, its weights by a link, with such a tokenizer; files that are right already stay.

    Raises:
        ConfigError: there is no checkpoint of one file.
    """
    weights, config = source / "model.safetensors", source / "config.json"
    if not (weights.is_file() and config.is_file()):
        raise ConfigError(
            f"{source} holds no model.safetensors with config.json; make one with tools/make_checkpoint.py"
        )
    directory.mkdir(parents=True, exist_ok=True)
    linked = directory / weights.name
    if not linked.is_symlink() or linked.resolve() != weights.resolve():
        linked.unlink(missing_ok=True)
        linked.symlink_to(weights.resolve())
    shutil.copyfile(config, directory / config.name)
    shape = json.loads(config.read_text(encoding="utf-8"))
    write_tokenizer(directory, shape["vocab_size"], shape["eos_token_id"])
    return directory
