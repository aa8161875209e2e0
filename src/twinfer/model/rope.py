"""Rotary position embedding over the two halves of a head, as Llama and its kin have it.

A head's element ``i`` and ``i + head_dim / 2`` are turned as one plane by ``position * frequency[i]``.
"""

import math

import torch
from torch import Tensor

from twinfer.model.spec import RopeSpec


class RopeTable:
    """Cosines and sines of every position, ``[num_positions, head_dim / 2]`` each, in fp32."""

    def __init__(self, rope: RopeSpec, head_dim: int, num_positions: int, device: torch.device) -> None:
        positions = torch.arange(num_positions, dtype=torch.float32)
        angles = torch.outer(positions, frequencies(rope, head_dim))
        self.cos = angles.cos().to(device)
        self.sin = angles.sin().to(device)

    def at(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Cosines and sines for ``positions [T]``, each ``[T, 1, head_dim / 2]``: equal for all heads."""
        return self.cos[positions].unsqueeze(1), self.sin[positions].unsqueeze(1)


def frequencies(rope: RopeSpec, head_dim: int) -> Tensor:
    """Radians per position of each plane, ``[head_dim / 2]``, stretched as the scaling says."""
    exponents = torch.arange(0, head_dim, 2, dtype=torch.float32) / head_dim
    plain = 1.0 / rope.theta**exponents
    if rope.scaling == "default":
        return plain
    stretched = plain / rope.factor
    if rope.scaling == "linear":
        return stretched
    # llama3: long waves are stretched, short ones kept, and between the two bounds one fades into the other.
    turns = rope.original_max_positions * plain / (2 * math.pi)
    kept = (turns - rope.low_freq_factor) / (rope.high_freq_factor - rope.low_freq_factor)
    kept = kept.clamp(0.0, 1.0)
    return kept * plain + (1.0 - kept) * stretched


def rotate_(heads: Tensor, cos: Tensor, sin: Tensor) -> None:
    """Turn ``heads [T, heads, head_dim]`` in place; computed in fp32 whatever their type."""
    first, second = heads.chunk(2, dim=-1)
    turned_first = first * cos - second * sin
    turned_second = second * cos + first * sin
    first.copy_(turned_first)
    second.copy_(turned_second)
