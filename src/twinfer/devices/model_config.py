"""Reads a model's shape from its ``config.json``: one of those that ship with Twinfer, or any file or folder."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from twinfer.core.errors import ConfigError
from twinfer.devices.catalogue import near
from twinfer.devices.shape import Experts, Latent, ModelShape, Precision

SHAPES = Path(__file__).parent / "shapes"
DEFAULT_SHAPE = "gpt-oss-120b"
_EXPERTS = ("n_routed_experts", "num_local_experts", "num_experts")
_PER_TOKEN = ("num_experts_per_tok", "experts_per_token")
_NATIVE: dict[str, Precision] = {"mxfp4": "mxfp4", "fp8": "fp8"}


def shape_names() -> tuple[str, ...]:
    """The shapes that ship with Twinfer."""
    return tuple(sorted(path.stem for path in SHAPES.glob("*.json")))


def load_shape(name: str = DEFAULT_SHAPE) -> ModelShape:
    """The shape of that name, or that of a ``config.json``, or of a folder with one.

    Raises:
        ConfigError: there is none, with the nearest names; or the file lacks a key that is needed.
    """
    shipped = SHAPES / f"{name.lower()}.json"
    if name.lower() in shape_names():
        return _read(shipped, shipped.stem)
    path = Path(name)
    if path.is_dir():
        path /= "config.json"
    if path.is_file():
        return _read(path, path.stem if path.stem != "config" else path.resolve().parent.name)
    raise ConfigError(f"there is no model shape {name!r}, nor a config.json there; {near(name, shape_names())}")


def shape_of(config: Mapping[str, Any], name: str) -> ModelShape:
    """The shape that a published configuration describes.

    Raises:
        ConfigError: a key that is needed is missing or no whole number, or there is attention of another kind.
    """
    config = config.get("text_config") or config
    _check_kinds(config, name)
    read = _Reader(config, name)
    layers, hidden, heads = (read.need(key) for key in ("num_hidden_layers", "hidden_size", "num_attention_heads"))
    number = read.first(_EXPERTS)
    expert_layers = _expert_layers(config, layers) if number else 0
    window = read.get("sliding_window") if config.get("use_sliding_window", True) else 0
    quantisation = config.get("quantization_config") or {}
    return ModelShape(
        name=name,
        native=_NATIVE.get(str(quantisation.get("quant_method", "")), "bf16"),
        hidden_size=hidden,
        vocab_size=read.need("vocab_size"),
        num_heads=heads,
        num_kv_heads=read.get("num_key_value_heads") or heads,
        head_dim=read.get("head_dim") or hidden // heads,
        mlp_width=read.need("intermediate_size") if expert_layers < layers else 0,
        dense_layers=layers - expert_layers,
        expert_layers=expert_layers,
        experts=_experts(read, number) if expert_layers else Experts(1, 1, 0),
        latent=_latent(read),
        windowed_layers=_windowed_layers(config, layers) if window else 0,
        window_tokens=window,
        tied_embeddings=bool(config.get("tie_word_embeddings", False)),
    )


class _Reader:
    """Whole numbers of a configuration, with errors that name model and key."""

    def __init__(self, config: Mapping[str, Any], name: str) -> None:
        self._config = config
        self._name = name

    def get(self, key: str) -> int:
        """A key's number; 0 where it is missing or null."""
        value = self._config.get(key)
        if value is None:
            return 0
        if not isinstance(value, int) or isinstance(value, bool) or value < 0:
            raise ConfigError(f"the configuration of {self._name}: `{key}` is {value!r}, not a whole number")
        return value

    def need(self, key: str) -> int:
        """A key's number, which has to be there."""
        if not (value := self.get(key)):
            raise ConfigError(f"the configuration of {self._name} lacks `{key}`; give the config.json of a decoder")
        return value

    def first(self, keys: tuple[str, ...]) -> int:
        """The number of the first key that has one, else 0: families name the same thing differently."""
        return next((value for key in keys if (value := self.get(key))), 0)


def _experts(read: _Reader, number: int) -> Experts:
    width = read.get("moe_intermediate_size") or read.need("intermediate_size")
    shared = read.get("shared_expert_intermediate_size") or read.get("n_shared_experts") * width
    return Experts(number, read.first(_PER_TOKEN) or read.need(_PER_TOKEN[0]), width, shared)


def _latent(read: _Reader) -> Latent | None:
    if not read.get("kv_lora_rank"):
        return None
    q_rank = read.get("q_lora_rank")
    return Latent(
        q_rank, *(read.need(k) for k in ("kv_lora_rank", "qk_rope_head_dim", "qk_nope_head_dim", "v_head_dim"))
    )


def _expert_layers(config: Mapping[str, Any], layers: int) -> int:
    """Layers with a mixture, by the rules of DeepSeek's and Qwen's configurations."""
    step = config.get("decoder_sparse_step") or config.get("moe_layer_freq") or 1
    dense = set(config.get("mlp_only_layers") or ()) | set(range(config.get("first_k_dense_replace") or 0))
    return sum(index not in dense and (index + 1) % step == 0 for index in range(layers))


def _windowed_layers(config: Mapping[str, Any], layers: int) -> int:
    """Layers with a window: as listed, else those past ``max_window_layers``."""
    if kinds := config.get("layer_types"):
        return sum(kind == "sliding_attention" for kind in kinds)
    return layers - min(layers, config.get("max_window_layers") or 0)


def _check_kinds(config: Mapping[str, Any], name: str) -> None:
    if others := sorted(set(config.get("layer_types") or ()) - {"full_attention", "sliding_attention"}):
        raise ConfigError(f"the configuration of {name} has layers of {', '.join(others)}, whose KV is not known here")


def _read(path: Path, name: str) -> ModelShape:
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"cannot read the model configuration {path}: {error}") from error
    if not isinstance(config, dict):
        raise ConfigError(f"the model configuration {path} is no JSON object")
    return shape_of(config, name)
