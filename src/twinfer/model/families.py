"""What the name of a family implies, and what transformers takes where a configuration is silent."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal

from twinfer.model.spec import Family

Windows = Literal["none", "every layer", "if used", "by layer"]


@dataclass(frozen=True, slots=True)
class Bias:
    """Of the attention's projections: the field that says whether they have one (empty: none does), what it is where
    the field is absent, and whether the output projection follows it."""

    field: str = ""
    default: bool = False
    output: bool = False


_BY_FIELD = Bias("attention_bias", output=True)


@dataclass(frozen=True, slots=True)
class Traits:
    """A family.

    Attributes:
        architecture: the class that transformers knows it by.
        bias: of the attention's projections.
        head_dim: 0 for ``hidden_size / num_attention_heads``.
        theta: base of the rope.
        local_theta: base of the rope of layers with a window, where they have their own; else 0.
        default_rope: parameters where there are none at all.
        eps: of the norms.
        tied: the output projection is the embedding.
        qk_norm: queries and keys are normalised.
        windows: which layers have one: none, every one that ``sliding_window`` is set for, those for which
            ``use_sliding_window`` is set, or those that ``layer_types`` names.
        window: its size.
        period: every so many layers one sees everything, where ``layer_types`` is absent.
        experts: field that says how many experts there are; empty for none.
        gemma: the ways of Gemma: scaled embeddings, norms around each part, soft caps, a scale of its own.
        attention_softcap: Gemma's bound on scores.
        logit_softcap: its bound on logits.
    """

    architecture: str
    bias: Bias = Bias()
    head_dim: int = 0
    theta: float = 10000.0
    local_theta: float = 0.0
    default_rope: Mapping[str, Any] | None = None
    eps: float = 1e-6
    tied: bool = False
    qk_norm: bool = False
    windows: Windows = "none"
    window: int = 4096
    period: int = 0
    experts: str = ""
    gemma: bool = False
    attention_softcap: float = 0.0
    logit_softcap: float = 0.0


_GPT_OSS_ROPE = {
    "rope_type": "yarn",
    "factor": 32.0,
    "beta_fast": 32.0,
    "beta_slow": 1.0,
    "truncate": False,
    "original_max_position_embeddings": 4096,
}
FAMILIES: Mapping[Family, Traits] = MappingProxyType(
    {
        "llama": Traits("LlamaForCausalLM", _BY_FIELD),
        "mistral": Traits("MistralForCausalLM", windows="every layer"),
        "mixtral": Traits(
            "MixtralForCausalLM",
            theta=1000000.0,
            eps=1e-5,
            windows="every layer",
            window=0,
            experts="num_local_experts",
        ),
        "qwen2": Traits("Qwen2ForCausalLM", Bias(default=True), windows="if used"),
        "qwen2_moe": Traits("Qwen2MoeForCausalLM", Bias("qkv_bias", True), windows="if used", experts="num_experts"),
        "qwen3": Traits("Qwen3ForCausalLM", _BY_FIELD, head_dim=128, qk_norm=True, windows="if used"),
        "qwen3_moe": Traits("Qwen3MoeForCausalLM", _BY_FIELD, qk_norm=True, windows="if used", experts="num_experts"),
        "phi3": Traits("Phi3ForCausalLM", eps=1e-5, windows="every layer", window=0),
        "gemma2": Traits(
            "Gemma2ForCausalLM",
            _BY_FIELD,
            head_dim=256,
            tied=True,
            windows="by layer",
            period=2,
            gemma=True,
            attention_softcap=50.0,
            logit_softcap=30.0,
        ),
        "gemma3_text": Traits(
            "Gemma3ForCausalLM",
            _BY_FIELD,
            head_dim=256,
            theta=1000000.0,
            local_theta=10000.0,
            tied=True,
            qk_norm=True,
            windows="by layer",
            period=6,
            gemma=True,
        ),
        "gpt_oss": Traits(
            "GptOssForCausalLM",
            Bias("attention_bias", default=True, output=True),
            head_dim=64,
            theta=150000.0,
            default_rope=MappingProxyType(_GPT_OSS_ROPE),
            eps=1e-5,
            windows="by layer",
            window=128,
            period=2,
            experts="num_local_experts",
        ),
    }
)
