"""Weights as the decoder wants them, made once per machine into a cache file that all its workers map.

1. The file's name holds the weights' digest, their format and the version of this layout.
2. A worker that finds it whole (right tensors, right digest over their bytes) takes it as it is.
3. Otherwise one worker makes it under a lock while the others wait; it gets its name only when it is complete.
   Sources are read, decoded, converted or quantised, and written piece by piece, so no more than a piece is ever in
   memory.
4. ``load_weights`` maps it. On a CPU the tensors stay in the mapping, so its pages exist once per machine.
5. Before another one is made, those go that no worker has wanted for a month and that none maps.
"""

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
import xxhash
from torch import Tensor

from twinfer.core.errors import CheckpointError
from twinfer.model.cache_files import locked, mark_used, remove_unused, replacing
from twinfer.model.checkpoint import Checkpoint
from twinfer.model.dtypes import STORED, TORCH
from twinfer.model.kernels.library import Kernels
from twinfer.model.mapping import drop_cached, map_file, tensor_view
from twinfer.model.packing import PACKINGS, PANEL, Packing
from twinfer.model.part import Part
from twinfer.model.spec import ModelSpec, StoredFormat, arithmetic
from twinfer.model.tensor_file import PACKED, StoredTensor, TensorShape, read_header, write_tensors
from twinfer.model.tensor_names import parts, scales_name
from twinfer.model.unpack import pieces
from twinfer.model.weights import Weights, assemble

LAYOUT_VERSION = 1
"""To be raised when ``parts``, their order or ``packing`` change."""
_SLAB_ELEMENTS = 1024 * 1024
_KEPT_S = 30 * 86_400.0
"""After a file was wanted last."""


def prepare(checkpoint: Checkpoint, digest: str, weights: StoredFormat, cache_dir: Path) -> Path:
    """Make the cache file if it is not there, and return it.

    Args:
        checkpoint: what to make it from.
        digest: the checkpoint's ``weights_digest``.
        weights: of all tensors; a packed format is that of the matrices but the embedding.
        cache_dir: created when missing.

    Raises:
        CheckpointError: the file cannot be written.
    """
    path = cache_dir / "weights" / f"{digest}-{weights}-v{LAYOUT_VERSION}.safetensors"
    ordered = [_Entry(part, weights) for part in _file_order(checkpoint.spec, weights)]
    shapes = [shape for entry in ordered for shape in entry.shapes()]
    now = time.time()
    mark_used(path, now)
    if _is_whole(path, shapes):
        return path
    try:
        with locked(path):
            if not _is_whole(path, shapes):
                remove_unused(path.parent, now - _KEPT_S)
                with replacing(path) as temporary:
                    write_tensors(temporary, shapes, _converted(checkpoint, ordered))
                drop_cached(path)
    except OSError as error:
        raise CheckpointError(
            f"prepared weights cannot be written to {path.parent} ({error.strerror}); "
            f"make room there or set cache_dir to another place"
        ) from error
    return path


def load_weights(path: Path, spec: ModelSpec, device: torch.device, kernels: Kernels | None = None) -> Weights:
    """Map a prepared file; tensors for another device are copied there.

    Args:
        path: from ``prepare``.
        spec: of the model.
        device: of all tensors.
        kernels: multiply with the matrices, where they can.
    """
    mapping = map_file(path)
    stored = read_header(path).tensors
    tensors = {name: tensor_view(mapping, tensor).to(device) for name, tensor in stored.items()}
    return assemble(tensors, spec, kernels)


@dataclass(frozen=True, slots=True)
class _Entry:
    """A part as the file holds it: one tensor, or packed weights with their scales."""

    part: Part
    weights: StoredFormat

    @property
    def packing(self) -> Packing | None:
        return PACKINGS.get(self.weights) if self.part.is_matrix else None

    def shapes(self) -> list[TensorShape]:
        name, shape = self.part.name, self.part.shape
        if self.packing is None:
            return [TensorShape(name, STORED[arithmetic(self.weights)], shape)]
        packed, scales = self.packing.shapes(*shape)
        return [TensorShape(name, PACKED, packed), TensorShape(scales_name(name), "BF16", scales)]

    def pieces(self, sources: Iterable[Tensor]) -> Iterator[Tensor]:
        """The data of ``shapes``, from the part's sources in order, each whole or some rows at a time."""
        if self.packing is None:
            for piece in pieces(self.part, sources):
                yield piece.to(TORCH[arithmetic(self.weights)])
            return
        kept = []
        for rows in _slabs(sources, PANEL * max(1, _SLAB_ELEMENTS // (PANEL * self.part.shape[1]))):
            packed, scales = self.packing.pack(rows)
            kept.append(scales)
            yield packed
        yield from kept


def _slabs(sources: Iterable[Tensor], num_rows: int) -> Iterator[Tensor]:
    """The rows of all sources as if they were stacked, so many at once."""
    waiting: list[Tensor] = []
    for source in sources:
        for piece in torch.split(source, num_rows):
            waiting.append(piece)
            if sum(map(len, waiting)) >= num_rows:
                stacked = torch.cat(waiting)
                yield stacked[:num_rows]
                waiting = [stacked[num_rows:]]
    if any(map(len, waiting)):
        yield torch.cat(waiting)


def _file_order(spec: ModelSpec, weights: StoredFormat) -> list[Part]:
    """Matrices before vectors, so that no short vector spoils a matrix's alignment."""
    found = list(parts(spec))
    if weights in PACKINGS and spec.tied_embeddings:
        found.append(Part("head", found[0].sources))
    return sorted(found, key=lambda part: -len(part.shape))


def _is_whole(path: Path, shapes: list[TensorShape]) -> bool:
    """Whether the file holds exactly these tensors, undamaged. Reads all of it, at memory speed when it is cached."""
    try:
        found = read_header(path)
    except CheckpointError:
        return False
    if [TensorShape(name, tensor.dtype, tensor.shape) for name, tensor in found.tensors.items()] != shapes:
        return False
    with map_file(path) as mapping, memoryview(mapping) as view, view[found.data_start :] as data:
        return xxhash.xxh3_64_hexdigest(data) == found.digest


def _converted(checkpoint: Checkpoint, ordered: list[_Entry]) -> Iterator[memoryview]:
    """The bytes of all entries in order, in pieces."""
    mappings = {path: map_file(path) for path in checkpoint.files}

    def view(stored: StoredTensor) -> Tensor:
        return tensor_view(mappings[stored.file], stored)

    def sources(part: Part) -> Iterator[Tensor]:
        for name, _ in part.sources:
            if name in checkpoint.matrices:
                yield from checkpoint.matrices[name].slabs(view)
            else:
                yield view(checkpoint.tensors[name])

    for entry in ordered:
        for piece in entry.pieces(sources(entry.part)):
            yield piece.contiguous().view(torch.uint8).numpy().data
