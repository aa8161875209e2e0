"""A weight matrix as the decoder uses it, ``[out, in]``: something that rows of activations are multiplied with.

Layers know matrices by ``product`` alone, so how a matrix is stored and which code multiplies it is settled once, when
weights are loaded.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from twinfer.model.kernels.library import Isa, Kernels, StoredMatrix, stored_matrix
from twinfer.model.packing import PACKINGS, Packing
from twinfer.model.tensor_names import scales_name

_FEW_ROWS = 16
"""So many are bound by memory and multiplied as fast with any instructions; for more, only tiles match torch."""
_TILE = 32
"""Inputs that a row of a tile holds."""


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


@dataclass(frozen=True, slots=True)
class KernelMatrix:
    """bf16 in a CPU's memory, multiplied by our kernels where those are as fast as torch.

    Attributes:
        weight: the elements.
        stored: they, as kernels name them.
    """

    weight: Tensor
    stored: StoredMatrix
    kernels: Kernels

    def product(self, rows: Tensor, bias: Tensor | None = None) -> Tensor:
        """See ``Matrix``."""
        if len(rows) <= _FEW_ROWS or (self.kernels.isa == Isa.AMX and rows.shape[1] % _TILE == 0):
            return self.kernels.product(self.stored, rows.contiguous(), bias)
        return F.linear(rows, self.weight, bias)


@dataclass(frozen=True, slots=True)
class PackedMatrix:
    """8 or 4 bits in a CPU's memory, multiplied as they are.

    Attributes:
        tensors: weights and scales, kept alive.
        stored: they, as kernels name them.
    """

    tensors: tuple[Tensor, Tensor]
    stored: StoredMatrix
    kernels: Kernels

    def product(self, rows: Tensor, bias: Tensor | None = None) -> Tensor:
        """See ``Matrix``. Rows are rounded to 8 bits, with a scale for as many inputs as weights have one for."""
        return self.kernels.product(self.stored, rows, bias)


@dataclass(frozen=True, slots=True)
class UnpackedMatrix:
    """8 or 4 bits on any device, unpacked for each product: right, and slow.

    Attributes:
        tensors: weights and scales.
        shape: outputs and inputs.
    """

    tensors: tuple[Tensor, Tensor]
    shape: tuple[int, int]
    packing: Packing

    def product(self, rows: Tensor, bias: Tensor | None = None) -> Tensor:
        """See ``Matrix``."""
        outputs, inputs = self.shape
        weight = self.packing.unpack(*self.tensors, inputs)[:outputs]
        return F.linear(rows, weight.to(rows.dtype), bias)


def matrix(tensors: Mapping[str, Tensor], name: str, shape: tuple[int, ...], kernels: Kernels | None) -> Matrix:
    """One of a prepared file's matrices, with the best code that can multiply it.

    Args:
        tensors: of the file.
        name: of the matrix.
        shape: outputs and inputs.
        kernels: for a CPU; ``None`` leaves all to torch.
    """
    weights, scales = tensors[name], tensors.get(scales_name(name))
    usable = kernels if weights.device.type == "cpu" else None
    if scales is None:
        if usable is None or usable.isa < Isa.AVX512 or weights.dtype != torch.bfloat16:
            return PlainMatrix(weights)
        return KernelMatrix(weights, stored_matrix(weights, None, shape, 16), usable)
    outputs, inputs = shape
    packing = next(each for each in PACKINGS.values() if weights.shape == each.shapes(outputs, inputs)[0])
    if usable is None:
        return UnpackedMatrix((weights, scales), (outputs, inputs), packing)
    return PackedMatrix((weights, scales), stored_matrix(weights, scales, shape, packing.bits), usable)
