"""Tensors over a file's own pages: read-only, not copied, and shared by every process that maps the file."""

import mmap
import warnings
from pathlib import Path

import torch
from torch import Tensor

from twinfer.model.dtypes import TORCH_STORED
from twinfer.model.tensor_file import StoredTensor


def map_file(path: Path) -> mmap.mmap:
    """Map a whole file read-only. Writing to it through a tensor ends the process instead of spoiling the file."""
    with path.open("rb") as file:
        return mmap.mmap(file.fileno(), 0, flags=mmap.MAP_SHARED, prot=mmap.PROT_READ)


def tensor_view(mapping: mmap.mmap, stored: StoredTensor) -> Tensor:
    """A tensor that lies in the mapping and keeps it open."""
    dtype = TORCH_STORED[stored.dtype]
    count = (stored.end - stored.start) // dtype.itemsize
    with warnings.catch_warnings():
        # torch has no read-only tensors and says so.
        warnings.filterwarnings("ignore", "The given buffer is not writable", UserWarning)
        flat = torch.frombuffer(mapping, dtype=dtype, count=count, offset=stored.start)
    return flat.view(stored.shape)
