"""What a quantised checkpoint stores in place of a matrix ``[out, in]``, and how it becomes numbers.

Only methods of tensors are used here and in the schemes, so that a checkpoint can be checked without torch.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from torch import Tensor

NUMBERS = ("F32", "BF16", "F16")
"""Element types of scales, and of matrices that are not quantised."""
ACTIVATIONS = frozenset(
    {"input_scale", "input_zero_point", "output_scale", "output_zero_point", "activation_scale"}
    | {f"{x}_{kind}" for x in "qkv" for kind in ("scale", "zero_point")}
)
"""Last names of tensors that say how activations or KV are to be rounded. Here they are not."""


@dataclass(frozen=True, slots=True)
class Layout:
    """One way in which a tensor may be stored.

    Attributes:
        dtypes: safetensors' names of its element type.
        shape: of the tensor.
        dim: that the matrix's outputs run along; ``None`` where all of them share the tensor.
        each: outputs that share an index of ``dim``.
    """

    dtypes: tuple[str, ...]
    shape: tuple[int, ...]
    dim: int | None = None
    each: int = 1


@dataclass(frozen=True, slots=True)
class Piece:
    """A tensor that stands for a matrix with others.

    Attributes:
        name: last part of its name, behind the module's.
        layouts: any of which it may have.
        required: whether it must be there.
        other_name: it may have instead.
    """

    name: str
    layouts: tuple[Layout, ...]
    required: bool = True
    other_name: str = ""


@dataclass(frozen=True, slots=True)
class Slab:
    """Some rows of a matrix as they are stored.

    Attributes:
        module: the matrix's name without ``.weight``, for errors.
        tensors: by the piece's name.
        outputs: how many rows.
        inputs: of a row.
    """

    module: str
    tensors: Mapping[str, "Tensor"]
    outputs: int
    inputs: int


class Scheme(Protocol):
    """A method with its parameters. Its ``repr`` tells all that changes what the tensors mean."""

    @property
    def unit(self) -> int:
        """Rows of a slab are a multiple of this, but for the last."""

    def pieces(self, outputs: int, inputs: int) -> tuple[Piece, ...]:
        """What is stored; the first is that with the elements."""

    def rows(self, slab: Slab) -> "Tensor":
        """The numbers, ``[outputs, inputs]`` in fp32.

        Raises:
            CheckpointError: the slab's tensors contradict each other.
        """
