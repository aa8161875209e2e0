import math
from typing import Any

import pytest
import torch
from tools.make_checkpoint import SHAPES

from twinfer.model.read_config import read_spec
from twinfer.model.rope import RopeTable, frequencies, rotate_
from twinfer.model.spec import RopeSpec

pytestmark = pytest.mark.torch

LLAMA3 = RopeSpec(10000.0, "llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_positions=64)


def test_default_frequencies() -> None:
    """Plane i of D / 2 turns by theta ** (-2i / D) per position."""
    expected = [10000.0 ** (-2 * i / 16) for i in range(8)]
    assert pytest.approx(expected, rel=1e-6) == frequencies(RopeSpec(10000.0), 16).tolist()


def test_linear_frequencies() -> None:
    """Linear scaling slows all planes alike."""
    plain, slow = (frequencies(rope, 16) for rope in (RopeSpec(10000.0), RopeSpec(10000.0, "linear", 4.0)))
    assert torch.equal(plain / 4.0, slow)


def test_llama3_frequencies() -> None:
    """Short waves stay, long ones are stretched by the factor, and those between lie between."""
    expected = []
    for plain in frequencies(RopeSpec(10000.0), 32).tolist():
        wavelength = 2 * math.pi / plain
        if wavelength < 64 / 4.0:
            expected.append(plain)
        elif wavelength > 64 / 1.0:
            expected.append(plain / 8.0)
        else:
            kept = (64 / wavelength - 1.0) / (4.0 - 1.0)
            expected.append((1 - kept) * plain / 8.0 + kept * plain)
    assert pytest.approx(expected, rel=1e-5) == frequencies(LLAMA3, 32).tolist()


YARN = {"rope_type": "yarn", "factor": 8.0, "original_max_position_embeddings": 64}
DIVISORS = {"short_factor": [1.0 + i / 8 for i in range(8)], "long_factor": [2.0 + i / 4 for i in range(8)]}


@pytest.mark.parametrize(
    "parameters",
    [
        {"rope_type": "linear", "factor": 3.0},
        {"rope_type": "dynamic", "factor": 3.0},
        {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0},
        YARN,
        YARN | {"beta_fast": 8, "beta_slow": 2, "truncate": False},
        YARN | {"attention_factor": 1.25},
        YARN | {"mscale": 0.7, "mscale_all_dim": 1.1},
        YARN | {"mscale": 0.7},
        YARN | {"factor": 0.5},
        YARN | {"original_max_position_embeddings": 4096},
        {"rope_type": "longrope", "original_max_position_embeddings": 64, **DIVISORS},
        {"rope_type": "longrope", "original_max_position_embeddings": 64, "attention_factor": 1.5, **DIVISORS},
    ],
)
@pytest.mark.parametrize("spelling", ["rope_scaling", "rope_parameters"])
def test_as_transformers_computes_it(parameters: dict[str, Any], spelling: str) -> None:
    """Frequencies and attention factor of every scaling, in both spellings."""
    from transformers import LlamaConfig
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    shape = SHAPES["tiny-llama"] | {"rope_theta": 30000.0}
    ours = dict(parameters) if spelling == "rope_scaling" else dict(parameters) | {"rope_theta": 30000.0}
    spec = read_spec(shape | {spelling: ours})
    config = LlamaConfig(**shape | {"rope_scaling": dict(parameters)})
    init = ROPE_INIT_FUNCTIONS[parameters["rope_type"]]
    for rope, length in ((spec.rope, 512), (spec.within(64).rope, 64)):
        expected, attention_factor = init(config, torch.device("cpu"), seq_len=length)
        torch.testing.assert_close(expected, frequencies(rope, 16), rtol=1e-6, atol=0)
        assert pytest.approx(attention_factor) == rope.attention_factor


def test_part_of_a_head() -> None:
    """Elements past the turned ones stay, and the planes are those of a smaller head."""
    heads = torch.randn(3, 2, 8, generator=torch.Generator().manual_seed(0))
    positions, device = torch.tensor([0, 3, 11]), torch.device("cpu")
    turned, small = heads.clone(), heads[..., :4].clone()
    rotate_(turned, *RopeTable(RopeSpec(100.0, fraction=0.5), 8, 12, device).at(positions))
    rotate_(small, *RopeTable(RopeSpec(100.0), 4, 12, device).at(positions))
    assert torch.equal(torch.cat((small, heads[..., 4:]), dim=-1), turned)


def test_attention_factor_stretches() -> None:
    """All that is turned is multiplied by it."""
    rope = RopeSpec(100.0, "yarn", 4.0, original_max_positions=64, attention_factor=2.0)
    cos, sin = RopeTable(rope, 8, 12, torch.device("cpu")).at(torch.tensor([5]))
    torch.testing.assert_close(torch.full_like(cos, 4.0), cos**2 + sin**2)


def test_rotation_turns_planes() -> None:
    """Elements i and i + D / 2 are one complex number, multiplied by a unit one."""
    positions = torch.tensor([0, 3, 11])
    heads = torch.randn(3, 2, 8, generator=torch.Generator().manual_seed(0))
    table = RopeTable(RopeSpec(100.0), 8, 12, torch.device("cpu"))
    turned = heads.clone()
    rotate_(turned, *table.at(positions))
    angles = torch.outer(positions.float(), frequencies(RopeSpec(100.0), 8))[:, None]
    expected = torch.complex(heads[..., :4], heads[..., 4:]) * torch.polar(torch.ones(()).expand_as(angles), angles)
    torch.testing.assert_close(torch.cat([expected.real, expected.imag], -1), turned)
    assert torch.equal(heads[0], turned[0])
