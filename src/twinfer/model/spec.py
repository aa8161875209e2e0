"""The shape of a model: everything in which one supported decoder differs from another, as data. No torch.

``read_config`` makes it from a ``config.json``.
"""

from dataclasses import dataclass, replace
from typing import Literal

Family = Literal[
    "llama",
    "mistral",
    "mixtral",
    "qwen2",
    "qwen2_moe",
    "qwen3",
    "qwen3_moe",
    "phi3",
    "gemma2",
    "gemma3_text",
    "gpt_oss",
]
Precision = Literal["fp32", "bf16", "fp16"]
PackedFormat = Literal["int8", "int4"]
StoredFormat = Precision | PackedFormat
"""How matrices may be served; beside packed ones, everything else is bf16."""
RopeScaling = Literal["default", "linear", "llama3", "yarn", "longrope"]


@dataclass(frozen=True, slots=True)
class RopeSpec:
    """Rotary embedding over the two halves of a head, or of its first part.

    Attributes:
        theta: base of the wavelengths.
        scaling: ``linear`` divides all frequencies by ``factor``; ``llama3`` only the low ones, with a smooth step;
            ``yarn`` too, with a step by plane; ``longrope`` divides each plane's by one of ``divisors``.
        factor: how much the context was stretched.
        low_freq_factor: ``llama3``: wavelengths above ``original_max_positions / low_freq_factor`` are stretched.
        high_freq_factor: ``llama3``: those below ``original_max_positions / high_freq_factor`` are not.
        original_max_positions: context before stretching.
        beta_fast, beta_slow: ``yarn``: planes that turn more often than ``beta_fast`` times within the original
            context are kept, those that turn less than ``beta_slow`` times are stretched.
        truncate: ``yarn``: the step begins and ends at whole planes.
        attention_factor: cosines and sines are multiplied by it.
        divisors: ``longrope``: one for each plane.
        fraction: part of each head, from its beginning, that is turned.
    """

    theta: float
    scaling: RopeScaling = "default"
    factor: float = 1.0
    low_freq_factor: float = 1.0
    high_freq_factor: float = 1.0
    original_max_positions: int = 0
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    truncate: bool = True
    attention_factor: float = 1.0
    divisors: tuple[float, ...] = ()
    fraction: float = 1.0

    def num_turned(self, head_dim: int) -> int:
        """Elements of a head that are turned."""
        return int(head_dim * self.fraction)

    def in_words(self) -> str:
        """Convention and parameters, for a fingerprint."""
        words = f"rotate halves, theta {self.theta:g}"
        band = ""
        if self.scaling == "llama3":
            band = f" in {self.low_freq_factor:g} to {self.high_freq_factor:g} of {self.original_max_positions}"
        if self.scaling == "yarn":
            band = f" in {self.beta_fast:g} to {self.beta_slow:g} of {self.original_max_positions}"
            band += " at whole planes" if self.truncate else ""
        if self.scaling == "longrope":
            band = f" with {', '.join(f'{divisor:g}' for divisor in self.divisors)}"
        if self.scaling != "default":
            words += f", {self.scaling} by {self.factor:g}{band}"
        if self.attention_factor != 1.0:
            words += f", times {self.attention_factor:g}"
        if self.fraction != 1.0:
            words += f", the first {self.fraction:g} of a head"
        return words


@dataclass(frozen=True, slots=True)
class Gating:
    """How the two halves of a feed-forward network's first product become one.

    Attributes:
        function: what the gate goes through; ``clamped`` is gpt-oss' ``(up + 1) * gate * sigmoid(alpha * gate)``.
        alpha: ``clamped``: steepness.
        limit: ``clamped``: the gate is at most this, the other half at most this far from zero.
    """

    function: Literal["silu", "gelu_tanh", "clamped"] = "silu"
    alpha: float = 1.0
    limit: float = 0.0


@dataclass(frozen=True, slots=True)
class ExpertSpec:
    """A mixture of experts in place of the dense feed-forward network.

    Attributes:
        num_experts: in each such layer.
        per_token: how many of them compute a token.
        intermediate_size: of one expert.
        layers: per layer, whether it has experts.
        normalised: the shares of a token's experts add up to 1; else they are those among all experts.
        shared_intermediate_size: of a dense network that computes every token besides, behind a gate of its own; 0
            for none.
        biased: router and experts have biases.
        packed: the checkpoint stores the experts' matrices in MXFP4.
    """

    num_experts: int
    per_token: int
    intermediate_size: int
    layers: tuple[bool, ...]
    normalised: bool = True
    shared_intermediate_size: int = 0
    biased: bool = False
    packed: bool = False


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """What distinguishes one decoder from another.

    Attributes:
        windows: per layer, how many positions up to and with its own a query sees; 0 sees all.
        qkv_bias: the query, key and value projections have a bias.
        out_bias: the attention's output projection has one.
        qk_norm: queries and keys are normalised per head before the rotation.
        tied_embeddings: the output projection is the embedding.
        max_positions: context the model was made for.
        eos_ids: tokens that end a text.
        dtype: precision of the stored weights.
        local_rope: of layers with a window, where they have one of their own.
        short_rope: takes ``rope``'s place where no sequence is longer than its ``original_max_positions``.
        gating: of all feed-forward networks.
        experts: of layers that have them.
        sinks: each head has a score that takes its share of attention and gives nothing.
        post_norms: what attention and feed-forward network give is normalised before it is added.
        unit_offset_norms: norms scale by 1 + weight.
        embedding_scale: embeddings are multiplied by it.
        attention_scale: scores are multiplied by it; 0 for ``head_dim ** -0.5``.
        attention_softcap: scores are bent to stay within it; 0 for none.
        logit_softcap: logits are; 0 for none.
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
    local_rope: RopeSpec | None = None
    short_rope: RopeSpec | None = None
    gating: Gating = Gating()
    experts: ExpertSpec | None = None
    sinks: bool = False
    post_norms: bool = False
    unit_offset_norms: bool = False
    embedding_scale: float = 1.0
    attention_scale: float = 0.0
    attention_softcap: float = 0.0
    logit_softcap: float = 0.0

    @property
    def ropes(self) -> tuple[RopeSpec, ...]:
        """Of each layer."""
        local = self.local_rope or self.rope
        return tuple(local if window else self.rope for window in self.windows)

    @property
    def sight(self) -> int:
        """How many positions back any layer looks, with the query's own; 0 for all."""
        return max(self.windows) if all(self.windows) else 0

    def within(self, max_context_tokens: int) -> "ModelSpec":
        """The model as it is for sequences that are never longer."""
        short = self.short_rope
        if short is not None and max_context_tokens <= short.original_max_positions:
            return replace(self, rope=short)
        return self


def arithmetic(weights: StoredFormat) -> Precision:
    """What a model with such weights computes in."""
    return "bf16" if weights == "int8" or weights == "int4" else weights
