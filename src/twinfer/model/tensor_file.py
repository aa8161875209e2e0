"""The safetensors format: eight bytes of length, a JSON header, then all tensors' bytes with no gaps.

Reading checks that the file is whole without touching its data. Writing takes the data as a stream, so that a file
larger than memory can be made. (``safetensors`` itself writes only what is all in memory, and reads only into arrays.)
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import xxhash

from twinfer.core.errors import CheckpointError

PACKED = "U8"
"""Element type of what is no number by itself, such as MXFP4's blocks and scales, and our own packed matrices."""
ITEM_BYTES = {"F32": 4, "BF16": 2, "F16": 2, PACKED: 1, "F8_E4M3": 1, "I8": 1, "I32": 4, "I64": 8}
"""Element types that models are stored in, with their size."""
_ALIGNMENT = 64
_MAX_HEADER_BYTES = 100_000_000
"""The format's own bound."""
_DIGEST_KEY = "xxh3"


@dataclass(frozen=True, slots=True)
class TensorShape:
    """A tensor to be stored: its name, one of ``ITEM_BYTES``, and its shape."""

    name: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def num_bytes(self) -> int:
        """Size of its data."""
        return prod(self.shape) * ITEM_BYTES[self.dtype]


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """A tensor in a file, at bytes ``[start, end)``."""

    file: Path
    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class TensorFile:
    """A file's header. ``digest`` is xxh3-64 over its data where ``write_tensors`` made it, else empty."""

    path: Path
    tensors: Mapping[str, StoredTensor]
    data_start: int
    digest: str


def read_header(path: Path) -> TensorFile:
    """Read and check a file's header, and that the file is exactly as long as it says.

    Raises:
        CheckpointError: the file is missing, cut off or not safetensors, or stores other types than ``ITEM_BYTES``.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if size < 8 or length > min(size - 8, _MAX_HEADER_BYTES):
                raise CheckpointError(f"{path} is cut off or no safetensors file; copy or download it again")
            header = json.loads(file.read(length))
        metadata = header.pop("__metadata__", None) or {}
        start = 8 + length
        tensors = {name: _entry(path, name, entry, start) for name, entry in header.items()}
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise CheckpointError(f"{path} has no readable safetensors header; copy or download it again") from error
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror}") from error
    end = max((tensor.end for tensor in tensors.values()), default=start)
    if size != end:
        raise CheckpointError(f"{path} has {size} bytes instead of {end}; copy or download it again")
    return TensorFile(path, tensors, start, metadata.get(_DIGEST_KEY, ""))


def _entry(path: Path, name: str, entry: dict[str, Any], data_start: int) -> StoredTensor:
    dtype, shape = entry["dtype"], tuple(int(size) for size in entry["shape"])
    start, end = (data_start + int(offset) for offset in entry["data_offsets"])
    if dtype not in ITEM_BYTES:
        raise CheckpointError(f"{path}: tensor {name} is {dtype}, but only {', '.join(ITEM_BYTES)} are supported")
    if end - start != prod(shape) * ITEM_BYTES[dtype] or start < data_start:
        raise CheckpointError(f"{path}: tensor {name} does not fill its place; copy or download the file again")
    return StoredTensor(path, dtype, shape, start, end)


def write_tensors(path: Path, tensors: Sequence[TensorShape], data: Iterable[memoryview], **metadata: str) -> None:
    """Write a file whose data comes as a stream: the bytes of ``tensors``, in their order, cut anyhow."""
    header = _header(tensors, metadata | {_DIGEST_KEY: "0" * 16})
    digest = xxhash.xxh3_64()
    with path.open("wb") as file:
        file.write(header)
        for piece in data:
            file.write(piece)
            digest.update(piece)
        expected = len(header) + sum(tensor.num_bytes for tensor in tensors)
        if file.tell() != expected:
            raise ValueError(f"the data stream of {path} has {file.tell()} bytes instead of {expected}")
        file.seek(0)
        file.write(_header(tensors, metadata | {_DIGEST_KEY: digest.hexdigest()}))


def _header(tensors: Sequence[TensorShape], metadata: Mapping[str, str]) -> bytes:
    """Length and JSON, padded with spaces so that the data starts aligned."""
    entries: dict[str, Any] = {"__metadata__": dict(metadata)}
    offset = 0
    for tensor in tensors:
        end = offset + tensor.num_bytes
        entries[tensor.name] = {"dtype": tensor.dtype, "shape": tensor.shape, "data_offsets": (offset, end)}
        offset = end
    text = json.dumps(entries).encode()
    text += b" " * (-(8 + len(text)) % _ALIGNMENT)
    return len(text).to_bytes(8, "little") + text
