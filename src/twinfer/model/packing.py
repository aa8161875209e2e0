"""Matrices in 8 or 4 bits: a bf16 scale per output and group of inputs, in the order in which kernels read them.

    weights = [out / 16][in / 4][16 outputs][4 inputs]      int8, signed
    weights = [out / 16][in / 8][16 outputs][4 inputs]      int4: value + 8; the high halves are the next 4 inputs
    scales  = [out / 16][in / group][16 outputs]

``out`` is padded with zeros to 16 and ``in`` to 128. kernels/packed.c has the same layout.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import torch
from torch import Tensor

from twinfer.model.spec import StoredFormat

PANEL = 16
"""Outputs that lie together."""
_ALIGNED_INPUTS = 128
_SHRUNK = (1.0, 0.95, 0.9, 0.85, 0.8)
"""Scales that are tried at 4 bits, relative to the one that clips nothing: clipping the largest can cost less than
rounding all others more coarsely."""


@dataclass(frozen=True, slots=True)
class Packing:
    """How a format stores a matrix.

    Attributes:
        bits: of an element.
        group: inputs that share a scale.
    """

    bits: int
    group: int

    @property
    def offset(self) -> int:
        """Added to a value to store it."""
        return 1 << (self.bits - 1)

    def shapes(self, outputs: int, inputs: int) -> tuple[tuple[int, int], tuple[int, int]]:
        """Shapes of the packed weights (uint8) and scales (bf16) of a matrix ``[outputs, inputs]``."""
        panels, padded = _padded(outputs, PANEL) // PANEL, _padded(inputs, _ALIGNED_INPUTS)
        return (panels, PANEL * padded * self.bits // 8), (panels, PANEL * padded // self.group)

    def pack(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Quantise ``rows [out, in]``: weights and scales of ``shapes``."""
        outputs, inputs = rows.shape
        padded = torch.zeros(_padded(outputs, PANEL), _padded(inputs, _ALIGNED_INPUTS))
        padded[:outputs, :inputs] = rows
        values, scales = self._round(padded.view(len(padded), -1, self.group))
        stored = values.to(torch.int8).view(torch.uint8) if self.bits == 8 else (values + self.offset).to(torch.uint8)
        stored = stored.view(-1, PANEL, padded.shape[1])
        if self.bits == 4:
            pairs = stored.view(*stored.shape[:2], -1, 2, 4)
            stored = pairs[..., 0, :] | (pairs[..., 1, :] << 4)
        quads = stored.reshape(len(stored), PANEL, -1, 4).transpose(1, 2)
        return quads.flatten(1), scales.view(len(stored), PANEL, -1).transpose(1, 2).flatten(1)

    def unpack(self, weights: Tensor, scales: Tensor, inputs: int) -> Tensor:
        """What ``pack`` gave as numbers again, ``[padded out, inputs]`` in fp32."""
        stored = weights.view(len(weights), -1, PANEL, 4).transpose(1, 2)
        if self.bits == 4:
            stored = torch.stack((stored & 15, stored >> 4), dim=3) - self.offset
        values = stored.view(torch.int8).reshape(len(weights), PANEL, -1, self.group).float()
        values *= scales.float().view(len(weights), -1, PANEL).transpose(1, 2)[..., None]
        return values.flatten(2).flatten(0, 1)[:, :inputs]

    def _round(self, groups: Tensor) -> tuple[Tensor, Tensor]:
        """Integers for ``groups [out, count, group]``, and scales ``[out, count]`` in bf16."""
        lowest, highest = -self.offset, self.offset - 1
        if self.bits == 8:
            scales = (groups.abs().amax(-1) / highest).to(torch.bfloat16)
            return _divided(groups, scales).clamp_(-highest, highest), scales
        # The element of largest magnitude becomes -8, the one end that reaches further; its sign goes into the scale.
        extreme = groups.gather(-1, groups.abs().argmax(-1, keepdim=True))[..., 0]
        best = torch.zeros_like(extreme, dtype=torch.bfloat16)
        values, least = torch.zeros_like(groups), torch.full_like(extreme, torch.inf)
        for shrunk in _SHRUNK:
            scales = (extreme * shrunk / lowest).to(torch.bfloat16)
            tried = _divided(groups, scales).clamp_(lowest, highest)
            error = (tried * scales.float()[..., None] - groups).square_().sum(-1)
            better = error < least
            least = torch.where(better, error, least)
            best = torch.where(better, scales, best)
            values = torch.where(better[..., None], tried, values)
        return values, best


def _divided(groups: Tensor, scales: Tensor) -> Tensor:
    """Groups over their scales, rounded; 0 where the scale is."""
    wide = scales.float()
    return (groups * torch.where(wide == 0, 0.0, 1.0 / wide)[..., None]).round_()


def _padded(size: int, unit: int) -> int:
    return -(-size // unit) * unit


PACKINGS: Mapping[StoredFormat, Packing] = MappingProxyType({"int8": Packing(8, 64), "int4": Packing(4, 32)})
