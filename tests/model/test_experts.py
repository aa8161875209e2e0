"""The mixture of experts against one row and one expert at a time."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from twinfer.model.activation import gated
from twinfer.model.experts import mix_experts, route
from twinfer.model.spec import ExpertSpec, Gating
from twinfer.model.weights import ExpertWeights

pytestmark = pytest.mark.torch

SPEC = ExpertSpec(num_experts=7, per_token=3, intermediate_size=10, layers=(True,))
GATINGS = [Gating("silu"), Gating("gelu_tanh"), Gating("clamped", alpha=1.702, limit=0.7)]


def random_weights(seed: int = 0) -> ExpertWeights:
    """Experts with biases, on 8 hidden elements."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    return ExpertWeights(
        router=normal(7, 8),
        router_bias=normal(7),
        gate_up=normal(7, 20, 8),
        gate_up_bias=normal(7, 20),
        down=normal(7, 8, 10),
        down_bias=normal(7, 8),
        shared_gate=None,
    )


def rows(count: int) -> torch.Tensor:
    """Input."""
    return torch.randn(count, 8, generator=torch.Generator().manual_seed(count))


@pytest.mark.parametrize("normalised", [True, False])
def test_route(normalised: bool) -> None:
    """The most likely experts; their shares are those among all, or made to add up to 1."""
    weights, hidden = random_weights(), rows(5)
    chosen, shares = route(hidden, weights, replace(SPEC, normalised=normalised))
    likely, best = F.linear(hidden, weights.router, weights.router_bias).softmax(-1).topk(3)
    assert torch.equal(best, chosen)
    torch.testing.assert_close(likely / likely.sum(-1, keepdim=True) if normalised else likely, shares)


@pytest.mark.parametrize("gating", GATINGS, ids=lambda gating: gating.function)
@pytest.mark.parametrize("count", [1, 2, 40])
def test_mixture(gating: Gating, count: int) -> None:
    """Each row's is the weighted sum of what its experts say to it alone."""
    weights, hidden = random_weights(), rows(count)
    assert weights.gate_up_bias is not None
    assert weights.down_bias is not None
    expected = torch.zeros_like(hidden)
    chosen, shares = route(hidden, weights, SPEC)
    for row in range(count):
        for expert, share in zip(chosen[row].tolist(), shares[row], strict=True):
            inner = gated(weights.gate_up[expert] @ hidden[row] + weights.gate_up_bias[expert], gating)
            expected[row] += share * (weights.down[expert] @ inner + weights.down_bias[expert])
    torch.testing.assert_close(expected, mix_experts(hidden, weights, SPEC, gating))


def test_without_biases() -> None:
    """No bias is one of zeros."""
    weights = random_weights()
    plain = replace(weights, router_bias=None, gate_up_bias=None, down_bias=None)
    zeros = replace(weights, router_bias=torch.zeros(7), gate_up_bias=torch.zeros(7, 20), down_bias=torch.zeros(7, 8))
    assert torch.equal(mix_experts(rows(9), zeros, SPEC, Gating()), mix_experts(rows(9), plain, SPEC, Gating()))


def test_clamped_gating() -> None:
    """gpt-oss: the gate is bounded above, the other half on both sides."""
    found = gated(torch.tensor([9.0, -9.0, 9.0, -9.0]), Gating("clamped", alpha=2.0, limit=3.0))
    sigmoid = torch.sigmoid(torch.tensor([6.0, -18.0]))
    torch.testing.assert_close(torch.tensor([4 * 3.0, -2 * -9.0]) * sigmoid, found)
