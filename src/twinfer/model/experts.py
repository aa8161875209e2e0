"""A mixture of experts: a router chooses few of many feed-forward networks for each row.

1. All rows are routed at once: each gets ``per_token`` experts and their shares.
2. The (row, expert) pairs are sorted by expert, so that an expert's rows lie together.
3. Each expert that anybody chose computes its rows in two products.
4. The results go back to the order of the rows and are added up by their shares; the sum does not depend on what else
   is in the batch.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from twinfer.model.activation import gated
from twinfer.model.spec import ExpertSpec, Gating
from twinfer.model.weights import ExpertWeights


def route(hidden: Tensor, weights: ExpertWeights, spec: ExpertSpec) -> tuple[Tensor, Tensor]:
    """The experts of each row of ``hidden [T, hidden]`` and their shares, each ``[T, per_token]``; shares in fp32."""
    scores = F.linear(hidden, weights.router, weights.router_bias).float()
    best, chosen = scores.topk(spec.per_token, dim=-1)
    among = best if spec.normalised else scores
    return chosen, torch.exp(best - among.logsumexp(dim=-1, keepdim=True))


def mix_experts(hidden: Tensor, weights: ExpertWeights, spec: ExpertSpec, gating: Gating) -> Tensor:
    """What the experts of each row make of it, ``[T, hidden]`` to ``[T, hidden]``."""
    chosen, shares = route(hidden, weights, spec)
    order = chosen.flatten().argsort(stable=True)
    inputs = hidden[order // spec.per_token]
    outputs = torch.empty_like(inputs)
    first = 0
    for expert, count in enumerate(chosen.flatten().bincount(minlength=spec.num_experts).tolist()):
        if count:
            rows = slice(first, first + count)
            outputs[rows] = _expert(inputs[rows], weights, expert, gating)
            first += count
    ordered = torch.empty_like(outputs)
    ordered[order] = outputs
    mixed = ordered.view(len(hidden), spec.per_token, -1) * shares.to(hidden.dtype)[..., None]
    return mixed.sum(dim=1)


def _expert(rows: Tensor, weights: ExpertWeights, expert: int, gating: Gating) -> Tensor:
    gate_up_bias = None if weights.gate_up_bias is None else weights.gate_up_bias[expert]
    down_bias = None if weights.down_bias is None else weights.down_bias[expert]
    inner = gated(F.linear(rows, weights.gate_up[expert], gate_up_bias), gating)
    return F.linear(inner, weights.down[expert], down_bias)
