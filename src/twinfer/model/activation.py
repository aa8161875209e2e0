"""Functions of single elements: how a gate acts on its other half, and how values are bent to stay within a bound."""

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


def softcap(values: Tensor, cap: float) -> Tensor:
    """Bend ``values`` so that they stay within ``cap``; 0 leaves them as they are."""
    return cap * torch.tanh(values / cap) if cap else values
