"""Tensors over a file's own pages: read-only, not copied, and shared by every process that maps the file.

Reading weights at the speed of memory takes huge pages: a decode step of a 0.5B model is a quarter slower with pages of
4 KiB. The kernel chooses when it reads a file in, and does not change its mind. So a file is asked for in huge pages,
and what writing it left in the page cache, in pages of all sizes, is dropped first. Kernels or file systems that cannot
do it take small ones.
"""

import fcntl
import mmap
import os
import warnings
from contextlib import suppress
from pathlib import Path

import torch
from torch import Tensor

from twinfer.model.dtypes import TORCH_STORED
from twinfer.model.tensor_file import StoredTensor


def map_file(path: Path) -> mmap.mmap:
    """Map a whole file read-only. Writing to it through a tensor ends the process instead of spoiling the file.

    As long as it is mapped it has a shared lock, where its file system has locks: so others see that it is used.
    """
    with path.open("rb") as file:
        with suppress(OSError):
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        mapping = mmap.mmap(file.fileno(), 0, flags=mmap.MAP_SHARED, prot=mmap.PROT_READ)
    if hasattr(mmap, "MADV_HUGEPAGE"):
        with suppress(OSError):
            mapping.madvise(mmap.MADV_HUGEPAGE)
    return mapping


def drop_cached(path: Path) -> None:
    """Let the page cache forget a file that is on the disk and that nobody maps; whoever needs it reads it again."""
    if hasattr(os, "posix_fadvise"):
        with path.open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def tensor_view(mapping: mmap.mmap, stored: StoredTensor) -> Tensor:
    """A tensor that lies in the mapping and keeps it open."""
    dtype = TORCH_STORED[stored.dtype]
    count = (stored.end - stored.start) // dtype.itemsize
    with warnings.catch_warnings():
        # torch has no read-only tensors and says so.
        warnings.filterwarnings("ignore", "The given buffer is not writable", UserWarning)
        flat = torch.frombuffer(mapping, dtype=dtype, count=count, offset=stored.start)
    return flat.view(stored.shape)
