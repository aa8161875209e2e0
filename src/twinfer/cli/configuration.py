"""From command line arguments to the effective configuration."""

import argparse
import os
from collections.abc import Callable
from pathlib import Path

import msgspec

from twinfer.cli.emulation import Surroundings, emulated_pair
from twinfer.core.config import Config
from twinfer.core.config_text import dump_config, parse_config
from twinfer.core.errors import ConfigError

CACHE_VARIABLE = "TWINFER_CACHE"
MakePair = Callable[[str, str, str, Surroundings], Config]
"""From a device for prompts, one for tokens, a model shape, and what is around them."""


def load_config(arguments: argparse.Namespace, made_for: MakePair = emulated_pair) -> Config:
    """File, then ``--set``, then the arguments of their own.

    Args:
        arguments: of the command line.
        made_for: makes the configuration for two devices that are named.

    Raises:
        ConfigError: which key is wrong, and what to do.
    """
    text = ""
    if arguments.config is not None:
        try:
            text = Path(arguments.config).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
            raise ConfigError(f"cannot read the configuration {arguments.config!r}: {reason}") from error
    if pair := _pair(arguments, made_for):
        text = dump_config(pair)
    config = parse_config(text, arguments.set)
    if getattr(arguments, "model", None):
        config = _serve_model(config, arguments.model)
    gateway = config.gateway
    if getattr(arguments, "host", None) is not None:
        gateway = msgspec.structs.replace(gateway, host=arguments.host)
    if getattr(arguments, "port", None) is not None:
        gateway = msgspec.structs.replace(gateway, port=arguments.port)
    if not 0 <= gateway.port < 65536:
        raise ConfigError(f"gateway.port is {gateway.port}; a port lies between 0 and 65535")
    elastic = config.elastic
    if getattr(arguments, "elastic", False):
        elastic = msgspec.structs.replace(elastic, enabled=True)
    return msgspec.structs.replace(config, gateway=gateway, elastic=elastic)


def _pair(arguments: argparse.Namespace, made_for: MakePair) -> Config | None:
    """The configuration that ``--prefill`` and ``--decode`` ask for; they stand in for a file and a model."""
    prefill, decode = getattr(arguments, "prefill", None), getattr(arguments, "decode", None)
    own = ("model_shape", "kv", "link", "time_scale") if hasattr(arguments, "kv") else ("model_shape",)
    wishes = {name: wish for name in own if (wish := getattr(arguments, name, None)) is not None}
    if not (prefill or decode or wishes):
        return None
    if not (prefill and decode):
        named = ", ".join(f"--{name.replace('_', '-')}" for name in ("prefill", "decode", *own))
        raise ConfigError(f"{named} are for two emulated devices: give both --prefill and --decode")
    if arguments.config is not None or getattr(arguments, "model", None):
        raise ConfigError("--prefill and --decode emulate a model without its weights: leave out MODEL and --config")
    from twinfer.devices.model_config import DEFAULT_SHAPE

    return made_for(prefill, decode, wishes.pop("model_shape", DEFAULT_SHAPE), Surroundings(**wishes))


def cache_dir(config: Config) -> str:
    """Where prepared weights go."""
    return config.cache_dir or os.environ.get(CACHE_VARIABLE) or str(Path.home() / ".cache" / "twinfer")


def _serve_model(config: Config, source: str) -> Config:
    """The first model becomes the one named on the command line, in its checkpoint's own precision."""
    if source == "demo":
        return config
    first, *others = config.model
    name = Path(source).name if Path(source).is_dir() else source
    model = msgspec.structs.replace(first, id=_model_id(name), source=source, name="", aliases=(name,))
    pools = tuple(
        msgspec.structs.replace(pool, weights="checkpoint", model="")
        if pool.model in ("", first.id) and pool in Config().pool
        else pool
        for pool in config.pool
    )
    return msgspec.structs.replace(config, model=(model, *others), pool=pools)


def _model_id(name: str) -> str:
    """A model id that Bedrock's clients accept: ``Qwen/Qwen2.5-0.5B`` becomes ``qwen.qwen2.5-0.5b``."""
    owner, _, base = name.rpartition("/")
    spelled = f"{owner or 'local'}.{base}".lower()
    return "".join(letter if letter.isalnum() or letter in ".-_:" else "-" for letter in spelled)
