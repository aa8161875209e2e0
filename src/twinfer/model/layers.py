"""The parts of a decoder layer that know nothing of sequences: every row of a batch is on its own."""

import torch
import torch.nn.functional as F
from torch import Tensor

from twinfer.model.activation import gated
from twinfer.model.experts import mix_experts
from twinfer.model.spec import Gating, ModelSpec
from twinfer.model.weights import LayerWeights


def norm(hidden: Tensor, weight: Tensor, spec: ModelSpec) -> Tensor:
    """Divide by the root mean square over the last dimension, and scale; computed in the weight's type."""
    return F.rms_norm(hidden.to(weight.dtype), (weight.shape[0],), weight, spec.rms_norm_eps).to(hidden.dtype)


def norm_if(hidden: Tensor, weight: Tensor | None, spec: ModelSpec) -> Tensor:
    """The same, where the model has such a norm."""
    return hidden if weight is None else norm(hidden, weight, spec)


def project_heads(hidden: Tensor, weights: LayerWeights, spec: ModelSpec) -> Tensor:
    """Queries, keys and values of ``hidden [T, hidden]``: ``[T, heads + 2 * kv_heads, head_dim]`` in that order.

    Where the model normalises queries and keys, they are.
    """
    fused = weights.qkv.product(hidden, weights.qkv_bias)
    heads = fused.view(len(hidden), spec.num_heads + 2 * spec.num_kv_heads, spec.head_dim)
    if weights.q_norm is not None and weights.k_norm is not None:
        queries, keys, _ = torch.split(heads, [spec.num_heads, spec.num_kv_heads, spec.num_kv_heads], dim=1)
        queries.copy_(norm(queries, weights.q_norm, spec))
        keys.copy_(norm(keys, weights.k_norm, spec))
    return heads


def feed_forward(hidden: Tensor, weights: LayerWeights, spec: ModelSpec) -> Tensor:
    """The layer's feed-forward network, ``[T, hidden]`` to ``[T, hidden]``: dense, of experts, or both side by side."""
    if weights.experts is None or spec.experts is None:
        return mlp(hidden, weights, spec.gating)
    mixed = mix_experts(hidden, weights.experts, spec.experts, spec.gating)
    if weights.experts.shared_gate is None:
        return mixed
    return mixed + torch.sigmoid(F.linear(hidden, weights.experts.shared_gate)) * mlp(hidden, weights, spec.gating)


def mlp(hidden: Tensor, weights: LayerWeights, gating: Gating) -> Tensor:
    """The dense network, gated; for layers that have one."""
    assert weights.gate_up is not None
    assert weights.down is not None
    return weights.down.product(gated(weights.gate_up.product(hidden), gating))
