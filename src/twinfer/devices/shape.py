"""What a model's shape costs: weights, KV, arithmetic and memory traffic, counted from its dimensions alone.

All counts are of one whole model. A fused multiply-add is two operations. Norms and biases are left out of the
arithmetic, and biases of the weights, where they are far below one percent.
"""

from dataclasses import dataclass
from typing import Literal

Precision = Literal["bf16", "fp8", "mxfp4", "nvfp4"]
PRECISIONS: tuple[Precision, ...] = ("bf16", "fp8", "mxfp4", "nvfp4")
BYTES_PER_WEIGHT: dict[Precision, float] = {"bf16": 2.0, "fp8": 1.0, "mxfp4": 4.25 / 8, "nvfp4": 4.5 / 8}
"""Scales included: MXFP4 has one of 8 bits for 32 weights, NVFP4 for 16."""
_UNQUANTISED = 2.0
ROUTING_EXPONENT = 0.88
"""Tokens of a batch choose alike: ``n`` touch as many experts as ``n ** ROUTING_EXPONENT`` independent ones would.

Fitted with the other parameters of docs/validation.md, then rounded.
"""
DENSE_LAYER_KERNELS = 9
"""Norm, projection of queries, keys and values, rotation, attention, projection, norm, and three of the MLP."""
_MIXTURE_KERNELS = 5
"""Router, choice, sorting, and what puts the results together again."""
_SHARED_EXPERT_KERNELS = 3
_LATENT_KERNELS = 6
"""Two more projections and norms on the way in, and two products that keys and values are absorbed into."""


@dataclass(frozen=True, slots=True)
class Experts:
    """The mixture in a layer.

    Attributes:
        number: experts of a layer among which a router chooses.
        per_token: how many of them a token goes through.
        width: inner width of one expert.
        shared_width: inner width of what every token goes through besides.
    """

    number: int
    per_token: int
    width: int
    shared_width: int = 0

    def distinct(self, tokens: int) -> float:
        """How many experts some of that many tokens go through, each as likely, of tokens that choose alike."""
        return self.number * (1.0 - float((1 - self.per_token / self.number) ** (tokens**ROUTING_EXPONENT)))


@dataclass(frozen=True, slots=True)
class Latent:
    """Multi-head latent attention: KV is one compressed vector and one rotated key per position.

    Attributes:
        q_rank: width to which queries are compressed; 0 where they are not.
        kv_rank: width of the compressed vector.
        rope_dim: width of the rotated key.
        nope_dim: width of a head's part that is not rotated.
        value_dim: width of a head's value.
    """

    q_rank: int
    kv_rank: int
    rope_dim: int
    nope_dim: int
    value_dim: int


@dataclass(frozen=True, slots=True)
class ModelShape:
    """Dimensions of a decoder.

    Attributes:
        native: the precision its published weights have.
        head_dim: of a key; with ``latent`` it is not used.
        dense_layers: layers with one MLP of ``mlp_width``.
        expert_layers: layers with a mixture of ``experts``.
        windowed_layers: those, of either kind, that attend to the last ``window_tokens`` positions only.
    """

    name: str
    native: Precision
    hidden_size: int
    vocab_size: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    mlp_width: int
    dense_layers: int
    expert_layers: int = 0
    experts: Experts = Experts(1, 1, 0)
    latent: Latent | None = None
    windowed_layers: int = 0
    window_tokens: int = 0
    tied_embeddings: bool = False

    @property
    def num_layers(self) -> int:
        """All of them."""
        return self.dense_layers + self.expert_layers

    @property
    def is_mixture(self) -> bool:
        """Whether any layer has experts."""
        return self.expert_layers > 0

    @property
    def num_kernels(self) -> int:
        """Operations that a device starts for one step through all layers, counted by kind of layer."""
        each = DENSE_LAYER_KERNELS + (_LATENT_KERNELS if self.latent is not None else 0)
        mixture = _MIXTURE_KERNELS + (_SHARED_EXPERT_KERNELS if self.experts.shared_width else 0)
        return self.num_layers * each + self.expert_layers * mixture

    @property
    def attention_weights(self) -> int:
        """Projections of all layers."""
        hidden, heads = self.hidden_size, self.num_heads
        if (latent := self.latent) is None:
            per_layer = hidden * self.head_dim * 2 * (heads + self.num_kv_heads)
        else:
            q_out = heads * (latent.nope_dim + latent.rope_dim)
            per_layer = latent.q_rank * (hidden + q_out) if latent.q_rank else hidden * q_out
            per_layer += hidden * (latent.kv_rank + latent.rope_dim)
            per_layer += heads * (latent.kv_rank * (latent.nope_dim + latent.value_dim) + latent.value_dim * hidden)
        return per_layer * self.num_layers

    @property
    def dense_weights(self) -> int:
        """MLPs that every token goes through, the shared part of mixtures among them."""
        widths = self.dense_layers * self.mlp_width + self.expert_layers * self.experts.shared_width
        return 3 * self.hidden_size * widths

    @property
    def expert_weights(self) -> int:
        """All experts of all layers."""
        return 3 * self.hidden_size * self.experts.width * self.experts.number * self.expert_layers

    @property
    def router_weights(self) -> int:
        """What chooses the experts, and the norms: small, and never quantised."""
        return (
            self.expert_layers * self.experts.number * self.hidden_size + (2 * self.num_layers + 1) * self.hidden_size
        )

    @property
    def head_weights(self) -> int:
        """From the last layer to the vocabulary."""
        return self.hidden_size * self.vocab_size

    @property
    def parameters(self) -> int:
        """All weights; tied embeddings count once."""
        embeddings = self.head_weights * (1 if self.tied_embeddings else 2)
        return self.attention_weights + self.dense_weights + self.expert_weights + self.router_weights + embeddings

    @property
    def active_parameters(self) -> int:
        """Weights that one token is multiplied with, those of the head among them; a look-up is none."""
        return self._active_layer_weights + self.head_weights

    def weight_bytes(self, precision: Precision) -> int:
        """Memory of all weights.

        Embeddings, head, routers and norms stay in 16 bits. MXFP4 is taken as gpt-oss has it: where there are experts,
        they alone have it, and the rest stays in 16 bits.
        """
        embeddings = self.head_weights * (1 if self.tied_embeddings else 2)
        experts = self.expert_weights * BYTES_PER_WEIGHT[precision]
        return round(experts + self._other_layer_bytes(precision) + embeddings * _UNQUANTISED)

    def read_weight_bytes(self, precision: Precision, tokens: int) -> float:
        """Weights that a step with that many tokens reads once: of the experts, those expected to be chosen."""
        share = self.experts.distinct(tokens) / self.experts.number if self.is_mixture else 0.0
        experts = self.expert_weights * share * BYTES_PER_WEIGHT[precision]
        return experts + self._other_layer_bytes(precision) + self.head_weights * _UNQUANTISED

    def kv_bytes_per_token(self, element_bytes: float = 2.0) -> float:
        """KV that one more position takes while no window is full."""
        return self.num_layers * self._kv_elements * element_bytes

    def kv_bytes(self, tokens: int, element_bytes: float = 2.0) -> float:
        """KV of a context of that many positions; layers with a window keep no more than it holds."""
        full = (self.num_layers - self.windowed_layers) * tokens
        windowed = self.windowed_layers * min(tokens, self.window_tokens)
        return (full + windowed) * self._kv_elements * element_bytes

    def kv_copies(self, tensor_parallel: int) -> float:
        """How often each KV byte is held over that many devices: heads are dealt out, and repeated when too few."""
        heads = 1 if self.latent is not None else self.num_kv_heads
        return max(1.0, tensor_parallel / heads)

    def linear_flops(self, tokens: int, draws: int = 1) -> float:
        """Operations of all projections for that many tokens, ``draws`` of which go through the head."""
        return 2.0 * (self._active_layer_weights * tokens + self.head_weights * draws)

    def expert_flops(self, tokens: int) -> float:
        """The part of it that experts do."""
        return 2.0 * self.expert_weights * self.experts.per_token / self.experts.number * tokens

    def attention_flops(self, new_tokens: int, context_tokens: int) -> float:
        """Operations of scores and weighted values: each new token attends to the context and those up to itself.

        Latent attention of a single token works on the compressed vectors, that of many on expanded heads.
        """
        full = _attended(new_tokens, context_tokens, None) * (self.num_layers - self.windowed_layers)
        windowed = _attended(new_tokens, context_tokens, self.window_tokens) * self.windowed_layers
        return 2.0 * self.num_heads * self._score_width(new_tokens) * (full + windowed)

    @property
    def _active_layer_weights(self) -> int:
        active_experts = self.expert_weights * self.experts.per_token // self.experts.number
        return self.attention_weights + self.dense_weights + active_experts + self.router_weights

    @property
    def _kv_elements(self) -> int:
        """Elements of one position in one layer."""
        if self.latent is not None:
            return self.latent.kv_rank + self.latent.rope_dim
        return 2 * self.num_kv_heads * self.head_dim

    def _other_layer_bytes(self, precision: Precision) -> float:
        """Everything in the layers but the experts."""
        kept = precision == "mxfp4" and self.is_mixture
        width = _UNQUANTISED if kept else BYTES_PER_WEIGHT[precision]
        return (self.attention_weights + self.dense_weights) * width + self.router_weights * _UNQUANTISED

    def _score_width(self, new_tokens: int) -> int:
        """Width of a key and a value together, as one head sees them."""
        if (latent := self.latent) is None:
            return 2 * self.head_dim
        if new_tokens == 1:
            return 2 * latent.kv_rank + latent.rope_dim
        return latent.nope_dim + latent.rope_dim + latent.value_dim


def _attended(new_tokens: int, context_tokens: int, window: int | None) -> float:
    """Positions that the new tokens attend to, summed over them."""
    growing = new_tokens if window is None else min(new_tokens, max(0, window - context_tokens))
    total = growing * context_tokens + growing * (growing + 1) / 2
    return total + (new_tokens - growing) * (window or 0)
