"""Weights as the decoder wants them, made once per machine into a cache file that all its workers map.

1. The file's name holds the weights' digest, the precision and the version of this layout.
2. A worker that finds it whole (right tensors, right digest over their bytes) takes it as it is.
3. Otherwise one worker makes it under a lock while the others wait; it gets its name only when it is complete.
   Sources are read, converted and written piece by piece, so no more than a piece is ever in memory.
4. ``load_weights`` maps it. On a CPU the tensors stay in the mapping, so its pages exist once per machine.
"""

from collections.abc import Iterator
from pathlib import Path

import torch
import xxhash

from twinfer.core.errors import CheckpointError
from twinfer.model.cache_files import locked, replacing
from twinfer.model.checkpoint import Checkpoint
from twinfer.model.dtypes import STORED, TORCH
from twinfer.model.mapping import map_file, tensor_view
from twinfer.model.part import Part
from twinfer.model.spec import ModelSpec, Precision
from twinfer.model.tensor_file import TensorShape, read_header, write_tensors
from twinfer.model.tensor_names import parts
from twinfer.model.unpack import pieces
from twinfer.model.weights import Weights, assemble

LAYOUT_VERSION = 1
"""To be raised when ``parts`` or their order change."""


def prepare(checkpoint: Checkpoint, digest: str, precision: Precision, cache_dir: Path) -> Path:
    """Make the cache file if it is not there, and return it.

    Args:
        checkpoint: what to make it from.
        digest: the checkpoint's ``weights_digest``.
        precision: of all tensors.
        cache_dir: created when missing.

    Raises:
        CheckpointError: the file cannot be written.
    """
    path = cache_dir / "weights" / f"{digest}-{precision}-v{LAYOUT_VERSION}.safetensors"
    ordered = _file_order(checkpoint.spec)
    shapes = [TensorShape(part.name, STORED[precision], part.shape) for part in ordered]
    if _is_whole(path, shapes):
        return path
    try:
        with locked(path):
            if not _is_whole(path, shapes):
                with replacing(path) as temporary:
                    write_tensors(temporary, shapes, _converted(checkpoint, ordered, precision))
    except OSError as error:
        raise CheckpointError(
            f"prepared weights cannot be written to {path.parent} ({error.strerror}); "
            f"make room there or set cache_dir to another place"
        ) from error
    return path


def load_weights(path: Path, spec: ModelSpec, device: torch.device) -> Weights:
    """Map a prepared file; tensors for another device are copied there."""
    mapping = map_file(path)
    stored = read_header(path).tensors
    return assemble({name: tensor_view(mapping, tensor).to(device) for name, tensor in stored.items()}, spec)


def _file_order(spec: ModelSpec) -> list[Part]:
    """Matrices before vectors, so that no short vector spoils a matrix's alignment."""
    return sorted(parts(spec), key=lambda part: -len(part.shape))


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


def _converted(checkpoint: Checkpoint, ordered: list[Part], precision: Precision) -> Iterator[memoryview]:
    """The bytes of all parts in order, in pieces."""
    mappings = {path: map_file(path) for path in checkpoint.files}
    for part in ordered:
        stored = [checkpoint.tensors[name] for name, _ in part.sources]
        for piece in pieces(part, [tensor_view(mappings[tensor.file], tensor) for tensor in stored]):
            yield piece.to(TORCH[precision]).view(torch.uint8).numpy().data
