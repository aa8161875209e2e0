"""MXFP4 of the OCP Microscaling formats: 32 elements of four bits share a scale of eight.

An element is E2M1: a sign, two bits of exponent with bias 1, one of mantissa. Two lie in a byte, the lower four bits
first. A scale is E8M0: ``2 ** (byte - 127)``, and 255 is not a number. Every value but that is exact in bf16.
"""

import torch
from torch import Tensor

_MAGNITUDES = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)
_EXPONENT_BIT = 23
"""Where float32 has its exponent, which has E8M0's bias."""
_SMALLEST, _NOT_A_NUMBER = 1 << 22, 0x7FC00000
"""Float32's bits of ``2 ** -127``, and of no number."""


def decode(blocks: Tensor, scales: Tensor) -> Tensor:
    """The numbers of ``blocks [..., G, 16]`` with ``scales [..., G]``, both bytes: ``[..., G * 32]`` in fp32."""
    values = torch.tensor([*_MAGNITUDES, *(-value for value in _MAGNITUDES)], device=blocks.device)
    elements = torch.stack((values[(blocks & 15).int()], values[(blocks >> 4).int()]), dim=-1).flatten(-2)
    bits = scales.int() << _EXPONENT_BIT
    bits.masked_fill_(scales == 0, _SMALLEST).masked_fill_(scales == 255, _NOT_A_NUMBER)
    return (elements * bits.view(torch.float32)[..., None]).flatten(-2)
