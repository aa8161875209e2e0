"""Rotary position embedding over the two halves of a head, as Llama and its kin have it.

Of the D elements of a head that are turned (all, or its first ones), ``i`` and ``i + D / 2`` are one plane, turned by
``position * frequency[i]``.
"""

import math

import torch
from torch import Tensor

from twinfer.model.spec import RopeSpec


class RopeTable:
    """Cosines and sines of every position, ``[num_positions, D / 2]`` each, in fp32."""

    def __init__(self, rope: RopeSpec, head_dim: int, num_positions: int, device: torch.device) -> None:
        positions = torch.arange(num_positions, dtype=torch.float32)
        angles = torch.outer(positions, frequencies(rope, head_dim))
        self.cos = (angles.cos() * rope.attention_factor).to(device)
        self.sin = (angles.sin() * rope.attention_factor).to(device)

    def at(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Cosines and sines for ``positions [T]``, each ``[T, 1, D / 2]``: equal for all heads."""
        return self.cos[positions].unsqueeze(1), self.sin[positions].unsqueeze(1)


def frequencies(rope: RopeSpec, head_dim: int) -> Tensor:
    """Radians per position of each plane, ``[D / 2]``, stretched as the scaling says."""
    num_turned = rope.num_turned(head_dim)
    wavelengths = rope.theta ** (torch.arange(0, num_turned, 2, dtype=torch.float32) / num_turned)
    plain = 1.0 / wavelengths
    if rope.scaling == "default":
        return plain
    if rope.scaling == "longrope":
        return 1.0 / (torch.tensor(rope.divisors) * wavelengths)
    stretched = plain / rope.factor
    if rope.scaling == "linear":
        return stretched
    kept = _kept_by_wavelength(rope, plain) if rope.scaling == "llama3" else _kept_by_plane(rope, num_turned)
    return kept * plain + (1.0 - kept) * stretched


def _kept_by_wavelength(rope: RopeSpec, plain: Tensor) -> Tensor:
    """llama3: long waves are stretched (0), short ones kept (1), and between the bounds one fades into the other."""
    turns = rope.original_max_positions * plain / (2 * math.pi)
    kept = (turns - rope.low_freq_factor) / (rope.high_freq_factor - rope.low_freq_factor)
    return kept.clamp(0.0, 1.0)


def _kept_by_plane(rope: RopeSpec, num_turned: int) -> Tensor:
    """YaRN (2023): the same, but fading evenly from the plane that turns ``beta_fast`` times in the original context to
    the one that turns ``beta_slow`` times."""

    def plane_with(turns: float) -> float:
        wavelength = rope.original_max_positions / (turns * 2 * math.pi)
        return num_turned * math.log(wavelength) / (2 * math.log(rope.theta))

    low, high = plane_with(rope.beta_fast), plane_with(rope.beta_slow)
    if rope.truncate:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, num_turned - 1)
    width = high - low or 0.001
    return 1.0 - ((torch.arange(num_turned // 2, dtype=torch.float32) - low) / width).clamp(0.0, 1.0)


def rotate_(heads: Tensor, cos: Tensor, sin: Tensor) -> None:
    """Turn the first D elements of ``heads [T, heads, head_dim]`` in place; computed in fp32 whatever their type."""
    first, second = heads[..., : 2 * cos.shape[-1]].chunk(2, dim=-1)
    turned_first = first * cos - second * sin
    turned_second = second * cos + first * sin
    first.copy_(turned_first)
    second.copy_(turned_second)
