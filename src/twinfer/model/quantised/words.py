"""Integers of 4 or 8 bits in words of 32, and scales that cells of a matrix share."""

from typing import TYPE_CHECKING

from twinfer.core.errors import CheckpointError
from twinfer.model.quantised.scheme import NUMBERS, Layout

if TYPE_CHECKING:
    from torch import Tensor

WORD_BITS = 32
Cell = tuple[int, int]
"""Outputs and inputs that share a scale; 0 for all of them."""


def words_for(count: int, bits: int) -> int:
    """Words that hold so many integers."""
    return ceil_div(count * bits, WORD_BITS)


def unpack(words: "Tensor", bits: int) -> "Tensor":
    """``[..., N]`` words as ``[..., N * 32 / bits]`` integers from 0 on; the lowest bits of a word come first."""
    shifts = words.new_tensor(range(0, WORD_BITS, bits))
    return ((words[..., None] >> shifts) & ((1 << bits) - 1)).flatten(-2)


def scale_layouts(cell: Cell, outputs: int, inputs: int, dtypes: tuple[str, ...] = NUMBERS) -> tuple[Layout, ...]:
    """How the scales of all cells may be stored."""
    rows, columns = cell
    if not rows:
        return tuple(Layout(dtypes, shape) for shape in ((), (1,), (1, 1)))
    height, width = grid(cell, outputs, inputs)
    shapes = ((height, width),) if columns else ((height, 1), (height,))
    return tuple(Layout(dtypes, shape, 0, rows) for shape in shapes)


def grid(cell: Cell, outputs: int, inputs: int) -> tuple[int, int]:
    """Cells along each side of a matrix."""
    return ceil_div(outputs, cell[0] or outputs), ceil_div(inputs, cell[1] or inputs)


def spread(values: "Tensor", cell: Cell, outputs: int, inputs: int) -> "Tensor":
    """A value per cell as one per element, in fp32: ``[outputs, inputs]``."""
    wide = values.float().reshape(grid(cell, outputs, inputs))
    wide = wide.repeat_interleave(cell[0] or outputs, 0)[:outputs]
    return wide.repeat_interleave(cell[1] or inputs, 1)[:, :inputs]


def gathered(values: "Tensor", dim: int, groups: "Tensor", name: str) -> "Tensor":
    """The values of each input's group, along ``dim``.

    Raises:
        CheckpointError: the tensor ``name`` holds a group that there is not.
    """
    count = values.shape[dim]
    if int(groups.min()) < 0 or int(groups.max()) >= count:
        raise CheckpointError(f"tensor {name} must name groups from 0 to {count - 1}; copy or download it again")
    return values.index_select(dim, groups)


def ceil_div(size: int, unit: int) -> int:
    """How many units hold ``size``."""
    return -(-size // unit)
