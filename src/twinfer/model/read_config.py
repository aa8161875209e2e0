"""A model's shape from a Hugging Face ``config.json``, without torch.

The families are those of ``families``. Whatever else a configuration asks for is refused with the field's name: a
model that is almost right gives wrong text.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from twinfer.core.errors import CheckpointError
from twinfer.model.families import FAMILIES, Traits
from twinfer.model.fields import Fields
from twinfer.model.read_experts import read_experts
from twinfer.model.read_rope import RopePlace, read_ropes
from twinfer.model.spec import Family, Gating, ModelSpec, Precision

_PRECISIONS: dict[str, Precision] = {"float32": "fp32", "bfloat16": "bf16", "float16": "fp16"}
_DEFAULT_MAX_WINDOW_LAYERS = 28
_SLIDING, _FULL = "sliding_attention", "full_attention"


def read_spec(config: Mapping[str, Any], generation: Mapping[str, Any] | None = None) -> ModelSpec:
    """Make a spec from the contents of ``config.json`` and, where there is one, ``generation_config.json``.

    How matrices are quantised is not part of it: see ``quantised.registry``.

    Raises:
        CheckpointError: a field is missing, contradictory, or asks for something that is not supported.
    """
    fields = Fields(config, "config.json")
    family = _family(fields)
    traits = FAMILIES[family]
    _refuse_unsupported(fields, traits)
    hidden, heads = fields.integer("hidden_size"), fields.integer("num_attention_heads")
    layers, vocab = fields.integer("num_hidden_layers"), fields.integer("vocab_size")
    max_positions = fields.integer("max_position_embeddings")
    kv_heads = fields.integer("num_key_value_heads", heads)
    if heads % kv_heads:
        raise CheckpointError(
            f"config.json: num_key_value_heads {kv_heads} does not divide num_attention_heads {heads}"
        )
    head_dim = _head_dim(fields, traits, hidden, heads)
    qkv_bias = fields.flag(traits.bias.field, traits.bias.default) if traits.bias.field else traits.bias.default
    ropes = read_ropes(RopePlace(fields, traits, head_dim, max_positions))
    spec = ModelSpec(
        family=family,
        vocab_size=vocab,
        hidden_size=hidden,
        num_layers=layers,
        num_heads=heads,
        num_kv_heads=kv_heads,
        head_dim=head_dim,
        intermediate_size=fields.integer("intermediate_size"),
        rms_norm_eps=fields.number("rms_norm_eps", traits.eps),
        rope=ropes.rope,
        windows=_windows(fields, family, traits, layers),
        qkv_bias=qkv_bias,
        out_bias=qkv_bias and traits.bias.output,
        qk_norm=traits.qk_norm,
        tied_embeddings=fields.flag("tie_word_embeddings", traits.tied),
        max_positions=max_positions,
        eos_ids=_eos_ids((generation or {}).get("eos_token_id"), fields.get("eos_token_id"), vocab),
        dtype=_dtype(fields),
        local_rope=ropes.local,
        short_rope=ropes.short,
        experts=read_experts(fields, family, traits, layers),
        sinks=family == "gpt_oss",
        gating=_gating(fields, family, traits),
    )
    return _in_the_way_of_gemma(spec, fields, traits) if traits.gemma else spec


def _family(fields: Fields) -> Family:
    model_type = fields.get("model_type")
    for family, traits in FAMILIES.items():
        if model_type == family:
            named = fields.get("architectures") or [traits.architecture]
            if named == [traits.architecture]:
                return family
            raise CheckpointError(
                f"config.json: architectures {named!r} is not supported, only [{traits.architecture!r}]"
            )
    raise CheckpointError(f"config.json: model_type {model_type!r} is not supported, only {', '.join(FAMILIES)}")


def _refuse_unsupported(fields: Fields, traits: Traits) -> None:
    name, supported = ("hidden_activation", "gelu_pytorch_tanh") if traits.gemma else ("hidden_act", "silu")
    activation = fields.get(name) or supported
    if activation != supported:
        raise CheckpointError(f"config.json: {name} {activation!r} is not supported, only {supported!r}")
    for name in ("mlp_bias", "use_bidirectional_attention"):
        if fields.flag(name):
            raise CheckpointError(f"config.json: {name} true is not supported, only false")


def _head_dim(fields: Fields, traits: Traits, hidden: int, heads: int) -> int:
    if fields.get("head_dim") is None and not traits.head_dim and hidden % heads:
        raise CheckpointError(f"config.json: num_attention_heads {heads} does not divide hidden_size {hidden}")
    head_dim = fields.integer("head_dim", traits.head_dim or hidden // heads)
    if head_dim % 2:
        raise CheckpointError(f"config.json: head_dim {head_dim} is odd, but the rotary embedding needs two halves")
    return head_dim


def _windows(fields: Fields, family: Family, traits: Traits, layers: int) -> tuple[int, ...]:
    if traits.windows == "none" or (traits.windows == "if used" and not fields.flag("use_sliding_window")):
        return (0,) * layers
    switched_on = fields.switched_on("sliding_window", traits.window)
    window = fields.integer("sliding_window", traits.window) if switched_on else 0
    if traits.windows == "every layer" or family == "qwen3_moe":
        return (window,) * layers
    kinds = fields.get("layer_types") or _kinds(fields, family, traits, layers)
    if len(kinds) != layers or not set(kinds) <= {_SLIDING, _FULL}:
        raise CheckpointError(
            f"config.json: layer_types must name 'full_attention' or 'sliding_attention' for each of {layers} layers"
        )
    return tuple(window if kind == _SLIDING else 0 for kind in kinds)


def _kinds(fields: Fields, family: Family, traits: Traits, layers: int) -> list[str]:
    """What transformers takes where the layers are not listed."""
    if traits.period:
        period = fields.integer("sliding_window_pattern", traits.period) if traits.local_theta else traits.period
        return [_SLIDING if (i + 1) % period else _FULL for i in range(layers)]
    bound = fields.integer("max_window_layers", _DEFAULT_MAX_WINDOW_LAYERS, minimum=0)
    if family == "qwen2_moe":
        return [_SLIDING if i < bound and (i + 1) % 2 else _FULL for i in range(layers)]
    return [_SLIDING if i >= bound else _FULL for i in range(layers)]


def _gating(fields: Fields, family: Family, traits: Traits) -> Gating:
    if family == "gpt_oss":
        return Gating("clamped", fields.number("swiglu_alpha", 1.702), fields.number("swiglu_limit", 7.0))
    return Gating("gelu_tanh" if traits.gemma else "silu")


def _in_the_way_of_gemma(spec: ModelSpec, fields: Fields, traits: Traits) -> ModelSpec:
    return replace(
        spec,
        post_norms=True,
        unit_offset_norms=True,
        embedding_scale=spec.hidden_size**0.5,
        attention_scale=fields.number("query_pre_attn_scalar", 256.0) ** -0.5,
        attention_softcap=fields.switchable("attn_logit_softcapping", traits.attention_softcap),
        logit_softcap=fields.switchable("final_logit_softcapping", traits.logit_softcap),
    )


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


def _dtype(fields: Fields) -> Precision:
    name = fields.get("dtype") or fields.get("torch_dtype") or "float32"
    if name not in _PRECISIONS:
        raise CheckpointError(f"config.json: dtype {name!r} is not supported, only {', '.join(_PRECISIONS)}")
    return _PRECISIONS[name]
