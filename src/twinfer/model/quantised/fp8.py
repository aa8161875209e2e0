"""FP8, as DeepSeek and Qwen publish it: matrices in E4M3, and a scale per block or per matrix.

    weight           = [out, in]  E4M3
    weight_scale_inv = a scale for each block of ``weight_block_size``; despite its name it multiplies

Without blocks there is one scale, ``weight_scale`` or ``weight_scale_inv``.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from twinfer.core.errors import CheckpointError
from twinfer.model.fields import Fields
from twinfer.model.quantised.fields import choice
from twinfer.model.quantised.scheme import Layout, Piece, Slab
from twinfer.model.quantised.words import Cell, scale_layouts, spread

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True)
class Fp8:
    """Its parameters: the block that shares a scale."""

    cell: Cell

    @property
    def unit(self) -> int:
        """Rows of a block."""
        return self.cell[0] or 1

    def pieces(self, outputs: int, inputs: int) -> tuple[Piece, ...]:
        """See ``Scheme``."""
        scales = scale_layouts(self.cell, outputs, inputs)
        whole = self.cell == (0, 0)
        return (
            Piece("weight", (Layout(("F8_E4M3",), (outputs, inputs), 0),)),
            Piece("weight_scale", scales, other_name="weight_scale_inv")
            if whole
            else Piece("weight_scale_inv", scales),
        )

    def rows(self, slab: Slab) -> "Tensor":
        """See ``Scheme``."""
        scales = slab.tensors["weight_scale" if self.cell == (0, 0) else "weight_scale_inv"]
        return slab.tensors["weight"].float() * spread(scales, self.cell, slab.outputs, slab.inputs)


def read_fp8(fields: Fields) -> Fp8:
    """From a ``quantization_config``."""
    choice(fields, "fmt", ("e4m3",), "e4m3")
    return Fp8(read_block(fields, "weight_block_size") if fields.get("weight_block_size") is not None else (0, 0))


def read_block(fields: Fields, name: str) -> Cell:
    """A list of two sizes.

    Raises:
        CheckpointError: the field holds something else.
    """
    found = fields.get(name)
    if not isinstance(found, list) or len(found) != 2 or not all(type(size) is int and size > 0 for size in found):
        raise CheckpointError(f"{fields.where}: {name} must list two positive integers, not {found!r}")
    return found[0], found[1]
