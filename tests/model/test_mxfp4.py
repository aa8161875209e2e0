"""MXFP4 from its definition: every element, every scale, and transformers' own reading of the same bytes."""

import math
import random

import pytest
import torch

from twinfer.model.mxfp4 import decode

pytestmark = pytest.mark.torch


def e2m1(bits: int) -> float:
    """A sign, two bits of exponent with bias 1, one bit of mantissa; exponent 0 is subnormal."""
    sign, exponent, mantissa = bits >> 3, bits >> 1 & 3, bits & 1
    magnitude = mantissa / 2 if exponent == 0 else 2.0 ** (exponent - 1) * (1 + mantissa / 2)
    return -magnitude if sign else magnitude


def expected_group(block: list[int], scale: int) -> list[float]:
    """32 numbers, the lower four bits of each byte first."""
    return [e2m1(bits) * 2.0 ** (scale - 127) for byte in block for bits in (byte & 15, byte >> 4)]


def test_elements() -> None:
    """All sixteen, those of the specification's table."""
    assert [e2m1(bits) for bits in range(8)] == [0, 0.5, 1, 1.5, 2, 3, 4, 6]
    blocks = torch.arange(256, dtype=torch.uint8).view(1, 16, 16)
    scales = torch.full((1, 16), 127, dtype=torch.uint8)
    expected = [value for row in blocks[0].tolist() for value in expected_group(row, 127)]
    assert expected == decode(blocks, scales).flatten().tolist()


@pytest.mark.parametrize("scale", [0, 1, 2, 60, 126, 127, 128, 200, 252])
def test_scales(scale: int) -> None:
    """Powers of two, exactly, from the smallest on; in bf16 too."""
    block = random.Random(scale).choices(range(256), k=16)
    found = decode(torch.tensor([[block]], dtype=torch.uint8), torch.tensor([[scale]], dtype=torch.uint8))
    assert expected_group(block, scale) == found.flatten().tolist()
    assert torch.equal(found, found.bfloat16().float()) or scale < 3


def test_scale_that_is_no_number() -> None:
    """The scale 255 makes its group not a number, and no other."""
    scales = torch.tensor([[255, 127]], dtype=torch.uint8)
    found = decode(torch.zeros(1, 2, 16, dtype=torch.uint8), scales)
    assert [all(map(math.isnan, found[0, :32].tolist())), found[0, 32:].tolist()] == [True, [0.0] * 32]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_as_transformers_reads_it(dtype: torch.dtype) -> None:
    """The tensors of published checkpoints: ``[experts, rows, groups, 16]``; transformers gives them transposed."""
    from transformers.integrations.mxfp4 import convert_moe_packed_tensors

    generator = torch.Generator().manual_seed(1)
    blocks = torch.randint(256, (3, 6, 2, 16), dtype=torch.uint8, generator=generator)
    scales = torch.randint(100, 140, (3, 6, 2), dtype=torch.uint8, generator=generator)
    expected = convert_moe_packed_tensors(blocks, scales, dtype=dtype)
    assert torch.equal(expected.transpose(1, 2), decode(blocks, scales).to(dtype))
