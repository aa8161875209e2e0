import math

import pytest
import torch

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
