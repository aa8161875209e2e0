"""The parts of a decoder layer that know nothing of sequences: every row of a batch is on its own."""

import torch
import torch.nn.functional as F
from torch import Tensor

from twinfer.model.spec import ModelSpec
from twinfer.model.weights import LayerWeights


def norm(hidden: Tensor, weight: Tensor, spec: ModelSpec) -> Tensor:
    """Divide by the root mean square over the last dimension, and scale."""
    return F.rms_norm(hidden, (weight.shape[0],), weight, spec.rms_norm_eps)


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


def mlp(hidden: Tensor, weights: LayerWeights) -> Tensor:
    """The gated feed-forward network (SwiGLU), ``[T, hidden]`` to ``[T, hidden]``."""
    gate, up = weights.gate_up.product(hidden).chunk(2, dim=-1)
    return weights.down.product(F.silu(gate) * up)
