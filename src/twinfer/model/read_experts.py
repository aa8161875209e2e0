"""A mixture of experts as configurations spell it."""

from twinfer.core.errors import CheckpointError
from twinfer.model.families import Traits
from twinfer.model.fields import Fields
from twinfer.model.spec import ExpertSpec, Family

_PER_TOKEN: dict[Family, int] = {"mixtral": 2, "qwen2_moe": 4, "qwen3_moe": 8, "gpt_oss": 4}
_MXFP4_GROUP = 32


def read_experts(fields: Fields, family: Family, traits: Traits, layers: int) -> ExpertSpec | None:
    """The experts of a model; ``None`` where it has none.

    Raises:
        CheckpointError: a field is missing or contradictory, or the quantisation is not supported.
    """
    if not traits.experts:
        return None
    num_experts, per_token = fields.integer(traits.experts), fields.integer("num_experts_per_tok", _PER_TOKEN[family])
    if per_token > num_experts:
        raise CheckpointError(
            f"config.json: num_experts_per_tok {per_token} is more than {traits.experts} {num_experts}"
        )
    if traits.experts == "num_local_experts":
        is_gpt_oss = family == "gpt_oss"
        inner = fields.integer("intermediate_size")
        return ExpertSpec(
            num_experts,
            per_token,
            inner,
            (True,) * layers,
            biased=is_gpt_oss,
            packed=is_gpt_oss and _is_packed(fields, inner),
        )
    return ExpertSpec(
        num_experts,
        per_token,
        fields.integer("moe_intermediate_size"),
        _layers(fields, layers),
        normalised=fields.flag("norm_topk_prob"),
        shared_intermediate_size=fields.integer("shared_expert_intermediate_size") if family == "qwen2_moe" else 0,
    )


def _layers(fields: Fields, layers: int) -> tuple[bool, ...]:
    """Every so many layers, without those that are named."""
    step, dense = fields.integer("decoder_sparse_step", 1), fields.get("mlp_only_layers") or []
    if not isinstance(dense, list) or not all(isinstance(layer, int) and 0 <= layer < layers for layer in dense):
        raise CheckpointError(f"config.json: mlp_only_layers must list layers below {layers}, not {dense!r}")
    return tuple((layer + 1) % step == 0 and layer not in dense for layer in range(layers))


def _is_packed(fields: Fields, inner: int) -> bool:
    """Whether gpt-oss' experts are in MXFP4, the only quantisation of theirs that is read."""
    method = fields.table("quantization_config").get("quant_method")
    if fields.get("quantization_config") is None:
        return False
    if method != "mxfp4":
        raise CheckpointError(
            f"config.json: quantization_config.quant_method {method!r} is not supported, only 'mxfp4'"
        )
    for name, size in (("hidden_size", fields.integer("hidden_size")), ("intermediate_size", inner)):
        if size % _MXFP4_GROUP:
            raise CheckpointError(f"config.json: {name} {size} is no multiple of {_MXFP4_GROUP}, as MXFP4 needs it")
    return True
