"""The quantised matrices of a checkpoint: which they are, their tensors checked, and their rows."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from twinfer.core.errors import CheckpointError
from twinfer.model.quantised.scheme import ACTIVATIONS, NUMBERS, Layout, Piece, Scheme, Slab
from twinfer.model.quantised.words import ceil_div
from twinfer.model.spec import ModelSpec
from twinfer.model.tensor_file import StoredTensor
from twinfer.model.tensor_names import parts

if TYPE_CHECKING:
    from torch import Tensor

_WEIGHT = ".weight"
_SLAB_ELEMENTS = 1024 * 1024


@dataclass(frozen=True, slots=True)
class QuantisedMatrix:
    """A matrix ``[outputs, inputs]`` and what stands for it.

    Attributes:
        module: its name without ``.weight``.
        stored: tensors by their piece's name, and how each is laid out.
    """

    module: str
    scheme: Scheme
    outputs: int
    inputs: int
    stored: Mapping[str, tuple[StoredTensor, Layout]]

    def slabs(self, view: Callable[[StoredTensor], "Tensor"]) -> Iterator["Tensor"]:
        """All rows in order, in fp32, some at a time.

        Args:
            view: gives a tensor's data.

        Raises:
            CheckpointError: the tensors contradict each other.
        """
        unit = self.scheme.unit
        step = unit * max(1, _SLAB_ELEMENTS // (unit * self.inputs))
        whole = {name: (view(stored), layout) for name, (stored, layout) in self.stored.items()}
        for start in range(0, self.outputs, step):
            end = min(self.outputs, start + step)
            tensors = {name: _narrowed(tensor, layout, start, end) for name, (tensor, layout) in whole.items()}
            yield self.scheme.rows(Slab(self.module, tensors, end - start, self.inputs))


def find_matrices(
    spec: ModelSpec, scheme: Scheme, tensors: Mapping[str, StoredTensor], directory: Path
) -> dict[str, QuantisedMatrix]:
    """Every matrix that is not there as plain numbers, by the name that it would have.

    What a method leaves as it is, a configuration says in many ways, so the tensors decide. The embedding never is
    quantised.

    Raises:
        CheckpointError: a tensor is missing, misshapen or of another type.
    """
    found = {}
    for name, shape in (source for part in parts(spec) if part.name != "embedding" for source in part.sources):
        if len(shape) != 2 or not name.endswith(_WEIGHT) or (name in tensors and tensors[name].dtype in NUMBERS):
            continue
        module, stored = name.removesuffix(_WEIGHT), {}
        for piece in scheme.pieces(*shape):
            tensor_name = _name(module, piece, tensors)
            if tensor_name in tensors:
                stored[piece.name] = tensors[tensor_name], _layout(tensor_name, piece, tensors[tensor_name])
            elif piece.required:
                raise CheckpointError(f"tensor {tensor_name} is missing from {directory}; copy or download it again")
        found[name] = QuantisedMatrix(module, scheme, *shape, stored)
    return found


def belongs(name: str, tensor: StoredTensor, matrices: Mapping[str, QuantisedMatrix]) -> bool:
    """Whether a tensor is one of a quantised matrix, or changes nothing here: how to round activations, or a bias of
    zeros, which some writers give every matrix."""
    module, _, last = name.rpartition(".")
    matrix = matrices.get(module + _WEIGHT)
    if matrix is not None and tensor in [stored for stored, _ in matrix.stored.values()]:
        return True
    return last in ACTIVATIONS or (matrix is not None and last == "bias" and _is_zero(tensor))


def _name(module: str, piece: Piece, tensors: Mapping[str, StoredTensor]) -> str:
    """Of a piece, as the checkpoint calls it."""
    other = f"{module}.{piece.other_name}"
    return other if piece.other_name and other in tensors else f"{module}.{piece.name}"


def _layout(name: str, piece: Piece, tensor: StoredTensor) -> Layout:
    """That which a tensor has."""
    typed = [layout for layout in piece.layouts if tensor.dtype in layout.dtypes]
    if not typed:
        wanted = ", ".join(dict.fromkeys(dtype for layout in piece.layouts for dtype in layout.dtypes))
        raise CheckpointError(f"tensor {name} is {tensor.dtype}, but config.json asks for {wanted}")
    for layout in typed:
        if layout.shape == tensor.shape:
            return layout
    wanted = " or ".join(str(list(layout.shape)) for layout in typed)
    raise CheckpointError(f"tensor {name} has shape {list(tensor.shape)}, but config.json asks for {wanted}")


def _narrowed(tensor: "Tensor", layout: Layout, start: int, end: int) -> "Tensor":
    """What of a tensor concerns outputs ``[start, end)``."""
    if layout.dim is None:
        return tensor
    first = start // layout.each
    return tensor.narrow(layout.dim, first, ceil_div(end, layout.each) - first)


def _is_zero(tensor: StoredTensor) -> bool:
    with tensor.file.open("rb") as file:
        file.seek(tensor.start)
        return not any(file.read(tensor.end - tensor.start))
