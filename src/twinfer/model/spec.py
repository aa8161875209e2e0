"""The shape of a model, read from a Hugging Face ``config.json``. Everything the decoder needs to know, and no torch.

Supported are the dense families Llama, Mistral, Qwen2 and Qwen3. Whatever else a configuration asks for is refused
with the field's name: a model that is almost right gives wrong text.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from twinfer.core.errors import CheckpointError

Family = Literal["llama", "mistral", "qwen2", "qwen3"]
Precision = Literal["fp32", "bf16", "fp16"]
PackedFormat = Literal["int8", "int4"]
StoredFormat = Precision | PackedFormat
"""How matrices may be served; beside packed ones, everything else is bf16."""
RopeScaling = Literal["default", "linear", "llama3"]

_ARCHITECTURES: dict[str, Family] = {
    "LlamaForCausalLM": "llama",
    "MistralForCausalLM": "mistral",
    "Qwen2ForCausalLM": "qwen2",
    "Qwen3ForCausalLM": "qwen3",
}
_PRECISIONS: dict[str, Precision] = {"float32": "fp32", "bfloat16": "bf16", "float16": "fp16"}
_DEFAULT_WINDOW = 4096
"""What transformers takes for a Mistral, and for a Qwen that asks for windows, where the file does not say."""
_DEFAULT_MAX_WINDOW_LAYERS = 28
_QWEN3_HEAD_DIM = 128


@dataclass(frozen=True, slots=True)
class RopeSpec:
    """Rotary embedding over the two halves of a head.

    Attributes:
        theta: base of the wavelengths.
        scaling: ``linear`` divides all frequencies by ``factor``; ``llama3`` only the low ones, with a smooth step.
        factor: how much the context was stretched.
        low_freq_factor: ``llama3``: wavelengths above ``original_max_positions / low_freq_factor`` are stretched.
        high_freq_factor: ``llama3``: those below ``original_max_positions / high_freq_factor`` are not.
        original_max_positions: ``llama3``: context before stretching.
    """

    theta: float
    scaling: RopeScaling = "default"
    factor: float = 1.0
    low_freq_factor: float = 1.0
    high_freq_factor: float = 1.0
    original_max_positions: int = 0

    def in_words(self) -> str:
        """Convention and parameters, for a fingerprint."""
        words = f"rotate halves, theta {self.theta:g}"
        if self.scaling == "linear":
            words += f", linear by {self.factor:g}"
        if self.scaling == "llama3":
            band = f"{self.low_freq_factor:g} to {self.high_freq_factor:g}"
            words += f", llama3 by {self.factor:g} in {band} of {self.original_max_positions}"
        return words


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """What distinguishes one dense decoder from another.

    Attributes:
        windows: per layer, how many positions up to and with its own a query sees; 0 sees all.
        qkv_bias: the query, key and value projections have a bias.
        out_bias: the attention's output projection has one.
        qk_norm: queries and keys are normalised per head before the rotation.
        tied_embeddings: the output projection is the embedding.
        max_positions: context the model was made for.
        eos_ids: tokens that end a text.
        dtype: precision of the stored weights.
    """

    family: Family
    vocab_size: int
    hidden_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    intermediate_size: int
    rms_norm_eps: float
    rope: RopeSpec
    windows: tuple[int, ...]
    qkv_bias: bool
    out_bias: bool
    qk_norm: bool
    tied_embeddings: bool
    max_positions: int
    eos_ids: tuple[int, ...]
    dtype: Precision


def arithmetic(weights: StoredFormat) -> Precision:
    """What a model with such weights computes in."""
    return "bf16" if weights == "int8" or weights == "int4" else weights


class _Fields:
    """A JSON object whose look-ups name the field that is missing or of the wrong kind. ``null`` counts as absent."""

    def __init__(self, values: Mapping[str, Any], where: str) -> None:
        self._values = values
        self._where = where

    def __contains__(self, name: str) -> bool:
        return name in self._values

    def get(self, name: str) -> Any:
        return self._values.get(name)

    def integer(self, name: str, default: int | None = None, minimum: int = 1) -> int:
        value = self._present(name, default)
        if not isinstance(value, int) or isinstance(value, bool) or value < minimum:
            raise CheckpointError(f"{self._where}: {name} must be an integer of at least {minimum}, not {value!r}")
        return value

    def number(self, name: str, default: float | None = None) -> float:
        value = self._present(name, default)
        if not isinstance(value, int | float) or isinstance(value, bool) or value <= 0:
            raise CheckpointError(f"{self._where}: {name} must be a positive number, not {value!r}")
        return float(value)

    def flag(self, name: str) -> bool:
        value = self._present(name, False)
        if not isinstance(value, bool):
            raise CheckpointError(f"{self._where}: {name} must be true or false, not {value!r}")
        return value

    def _present(self, name: str, default: Any) -> Any:
        value = self._values.get(name)
        value = default if value is None else value
        if value is None:
            raise CheckpointError(f"{self._where}: {name} is missing")
        return value


def read_spec(config: Mapping[str, Any], generation: Mapping[str, Any] | None = None) -> ModelSpec:
    """Make a spec from the contents of ``config.json`` and, where there is one, ``generation_config.json``.

    Raises:
        CheckpointError: a field is missing, contradictory, or asks for something that is not supported.
    """
    fields = _Fields(config, "config.json")
    family = _family(fields)
    _refuse_unsupported(fields)
    hidden, heads = fields.integer("hidden_size"), fields.integer("num_attention_heads")
    layers = fields.integer("num_hidden_layers")
    vocab = fields.integer("vocab_size")
    max_positions = fields.integer("max_position_embeddings")
    kv_heads = fields.integer("num_key_value_heads", heads)
    if heads % kv_heads:
        raise CheckpointError(
            f"config.json: num_key_value_heads {kv_heads} does not divide num_attention_heads {heads}"
        )
    attention_bias = family in ("llama", "qwen3") and fields.flag("attention_bias")
    return ModelSpec(
        family=family,
        vocab_size=vocab,
        hidden_size=hidden,
        num_layers=layers,
        num_heads=heads,
        num_kv_heads=kv_heads,
        head_dim=_head_dim(fields, family, hidden, heads),
        intermediate_size=fields.integer("intermediate_size"),
        rms_norm_eps=fields.number("rms_norm_eps", 1e-6),
        rope=_rope(fields, max_positions),
        windows=_windows(fields, family, layers),
        qkv_bias=family == "qwen2" or attention_bias,
        out_bias=attention_bias,
        qk_norm=family == "qwen3",
        tied_embeddings=fields.flag("tie_word_embeddings"),
        max_positions=max_positions,
        eos_ids=_eos_ids((generation or {}).get("eos_token_id"), fields.get("eos_token_id"), vocab),
        dtype=_dtype(fields),
    )


def _family(fields: _Fields) -> Family:
    model_type = fields.get("model_type")
    for architecture, family in _ARCHITECTURES.items():
        if model_type == family:
            named = fields.get("architectures") or [architecture]
            if named == [architecture]:
                return family
            raise CheckpointError(f"config.json: architectures {named!r} is not supported, only [{architecture!r}]")
    names = ", ".join(_ARCHITECTURES.values())
    raise CheckpointError(f"config.json: model_type {model_type!r} is not supported, only {names}")


def _refuse_unsupported(fields: _Fields) -> None:
    if fields.get("quantization_config") is not None:
        raise CheckpointError(
            "config.json: quantization_config is not supported, only weights in float32, bfloat16 or float16"
        )
    activation = fields.get("hidden_act") or "silu"
    if activation != "silu":
        raise CheckpointError(f"config.json: hidden_act {activation!r} is not supported, only 'silu'")
    if fields.flag("mlp_bias"):
        raise CheckpointError("config.json: mlp_bias true is not supported, only false")


def _head_dim(fields: _Fields, family: Family, hidden: int, heads: int) -> int:
    explicit = fields.get("head_dim") is not None or family == "qwen3"
    if not explicit and hidden % heads:
        raise CheckpointError(f"config.json: num_attention_heads {heads} does not divide hidden_size {hidden}")
    head_dim = fields.integer("head_dim", _QWEN3_HEAD_DIM if family == "qwen3" else hidden // heads)
    if head_dim % 2:
        raise CheckpointError(f"config.json: head_dim {head_dim} is odd, but the rotary embedding needs two halves")
    return head_dim


def _rope(fields: _Fields, max_positions: int) -> RopeSpec:
    """Read ``rope_parameters`` (transformers 5), or ``rope_scaling`` with ``rope_theta`` beside it (before)."""
    where = "rope_parameters" if fields.get("rope_parameters") else "rope_scaling"
    values = fields.get(where) or {}
    if not isinstance(values, dict):
        raise CheckpointError(f"config.json: {where} must be an object, not {values!r}")
    rope = _Fields(values, f"config.json: {where}")
    if rope.number("partial_rotary_factor", fields.number("partial_rotary_factor", 1.0)) != 1.0:
        raise CheckpointError("config.json: partial_rotary_factor is not supported, only 1")
    theta = rope.number("rope_theta", fields.number("rope_theta", 10000.0))
    scaling = rope.get("rope_type") or rope.get("type") or "default"
    if scaling == "default":
        return RopeSpec(theta)
    if scaling == "linear":
        return RopeSpec(theta, "linear", factor=rope.number("factor"))
    if scaling == "llama3":
        return RopeSpec(
            theta,
            "llama3",
            factor=rope.number("factor"),
            low_freq_factor=rope.number("low_freq_factor"),
            high_freq_factor=rope.number("high_freq_factor"),
            original_max_positions=rope.integer("original_max_position_embeddings", max_positions),
        )
    raise CheckpointError(
        f"config.json: {where}.rope_type {scaling!r} is not supported, only 'default', 'linear' and 'llama3'"
    )


def _windows(fields: _Fields, family: Family, layers: int) -> tuple[int, ...]:
    full = (0,) * layers
    if family == "mistral":
        switched_off = "sliding_window" in fields and fields.get("sliding_window") is None
        return full if switched_off else (fields.integer("sliding_window", _DEFAULT_WINDOW),) * layers
    if family == "llama" or not fields.flag("use_sliding_window"):
        return full
    window = fields.integer("sliding_window", _DEFAULT_WINDOW)
    first = fields.integer("max_window_layers", _DEFAULT_MAX_WINDOW_LAYERS, minimum=0)
    kinds = fields.get("layer_types") or [
        "sliding_attention" if i >= first else "full_attention" for i in range(layers)
    ]
    if len(kinds) != layers or not set(kinds) <= {"sliding_attention", "full_attention"}:
        raise CheckpointError(
            f"config.json: layer_types must name 'full_attention' or 'sliding_attention' for each of {layers} layers"
        )
    return tuple(window if kind == "sliding_attention" else 0 for kind in kinds)


def _eos_ids(generation: object, config: object, vocab: int) -> tuple[int, ...]:
    """Both files' ids, in order and without repetition."""
    ids: list[int] = []
    for value in (generation, config):
        listed: Sequence[object] = value if isinstance(value, list) else [] if value is None else [value]
        for token in listed:
            if not isinstance(token, int) or not 0 <= token < vocab:
                raise CheckpointError(f"eos_token_id {token!r} is no token id below vocab_size {vocab}")
            ids.append(token)
    return tuple(dict.fromkeys(ids))


def _dtype(fields: _Fields) -> Precision:
    name = fields.get("dtype") or fields.get("torch_dtype") or "float32"
    if name not in _PRECISIONS:
        raise CheckpointError(f"config.json: dtype {name!r} is not supported, only {', '.join(_PRECISIONS)}")
    return _PRECISIONS[name]
