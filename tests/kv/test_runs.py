"""Copies of runs: the same bytes whichever way, and none beside them."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from twinfer.kv.runs import CopyRuns, copy_runs_slowly, fast_copy_runs

WAYS = [way for way in (copy_runs_slowly, fast_copy_runs()) if way is not None]


@pytest.mark.parametrize("copy_runs", WAYS, ids=["numpy", "C"][: len(WAYS)])
@given(
    shape=st.tuples(st.integers(0, 5), st.integers(1, 300)),
    gaps=st.tuples(st.integers(0, 70), st.integers(0, 70)),
    starts=st.tuples(st.integers(0, 70), st.integers(0, 70)),
)
def test_the_same_bytes_and_no_others(
    copy_runs: CopyRuns, shape: tuple[int, int], gaps: tuple[int, int], starts: tuple[int, int]
) -> None:
    """Any number, length, distance and alignment of runs."""
    num_runs, run_bytes = shape
    steps = run_bytes + gaps[0], run_bytes + gaps[1]
    source = np.random.default_rng(0).integers(0, 256, 3000, np.uint8)
    found, expected = np.full(3000, 0x33, np.uint8), np.full(3000, 0x33, np.uint8)
    for run in range(num_runs):
        into, taken = starts[0] + run * steps[0], starts[1] + run * steps[1]
        expected[into : into + run_bytes] = source[taken : taken + run_bytes]
    copy_runs(found.ctypes.data + starts[0], source.ctypes.data + starts[1], num_runs, run_bytes, *steps)
    assert expected.tobytes() == found.tobytes()
