"""A weight matrix as the decoder uses it, ``[out, in]``: something that rows of activations are multiplied with.

Layers know matrices by ``product`` alone, so how a matrix is stored and which code multiplies it is settled once, when
weights are loaded.
"""

from dataclasses import dataclass
from typing import Protocol

import torch.nn.functional as F
from torch import Tensor


class Matrix(Protocol):
    """A matrix ``[out, in]``."""

    def product(self, rows: Tensor, bias: Tensor | None = None) -> Tensor:
        """``rows [T, in]`` times the transposed matrix, plus ``bias [out]``: ``[T, out]`` in the type of ``rows``."""
        ...


@dataclass(frozen=True, slots=True)
class PlainMatrix:
    """Elements of a type that torch computes with, on any device."""

    weight: Tensor

    def product(self, rows: Tensor, bias: Tensor | None = None) -> Tensor:
        """See ``Matrix``."""
        return F.linear(rows, self.weight, bias)
