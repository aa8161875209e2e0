"""The activation of feed-forward networks: two halves of a product become one."""

import torch
import torch.nn.functional as F
from torch import Tensor

from twinfer.model.spec import Gating


def gated(halves: Tensor, gating: Gating) -> Tensor:
    """Let the first half of the last dimension, the gate, act on the second: ``[..., 2 * n]`` to ``[..., n]``."""
    gate, up = halves.chunk(2, dim=-1)
    if gating.function == "silu":
        return F.silu(gate) * up
    if gating.function == "gelu_tanh":
        return F.gelu(gate, approximate="tanh") * up
    gate = gate.clamp(max=gating.limit)
    return (up.clamp(-gating.limit, gating.limit) + 1) * (gate * torch.sigmoid(gating.alpha * gate))
