"""Copies of runs of bytes at even distances, by address: in C past the caches, or in numpy where there is no C."""

import ctypes
from collections.abc import Callable
from pathlib import Path

import numpy as np

from twinfer.core.c_library import load_c

CopyRuns = Callable[[int, int, int, int, int, int], None]
"""Target, source, number of runs, bytes of each, bytes from one to the next in the target and in the source.

The caller vouches for the addresses. They do not overlap.
"""


def copy_runs_slowly(to: int, source: int, num_runs: int, run_bytes: int, to_step: int, source_step: int) -> None:
    """A ``CopyRuns`` for every machine."""
    np.copyto(_runs(to, num_runs, run_bytes, to_step), _runs(source, num_runs, run_bytes, source_step))


def fast_copy_runs() -> CopyRuns | None:
    """The one in C, if it was compiled."""
    library = load_c(Path(__file__).parent, "_runs")
    if library is None:
        return None
    function: CopyRuns = library.twinfer_copy_runs
    library.twinfer_copy_runs.argtypes = [ctypes.c_void_p] * 2 + [ctypes.c_size_t] * 4
    library.twinfer_copy_runs.restype = None
    return function


def _runs(address: int, num_runs: int, run_bytes: int, step: int) -> "np.ndarray[tuple[int, int], np.dtype[np.uint8]]":
    num_bytes = (num_runs - 1) * step + run_bytes if num_runs else 0
    memory = memoryview((ctypes.c_uint8 * num_bytes).from_address(address))
    return np.ndarray((num_runs, run_bytes), np.uint8, memory, 0, (step, 1))


copy_runs: CopyRuns = fast_copy_runs() or copy_runs_slowly
