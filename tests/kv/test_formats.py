"""Element types: rounded once and to the nearest, exact where the type has the value, and never silently finite."""

import math

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from twinfer.core.layout import KVDtype
from twinfer.kv.formats import Float32s, decode, encode

DTYPES: tuple[KVDtype, ...] = ("fp32", "bf16", "fp16", "fp8")
SMALLEST_SCALE = 2.0**-126
NEXT_TO_NOTHING = 2.0**-110
ROWS = st.lists(st.lists(st.floats(-6e4, 6e4, width=32), min_size=4, max_size=4), min_size=1, max_size=4).map(
    lambda rows: np.array(rows, np.float32)
)


def through(values: Float32s, dtype: KVDtype) -> Float32s:
    """What is left of values that were stored."""
    return decode(*encode(values, dtype), dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("scale", [1.0, 2.0**-12, 2.0**11])
def test_small_integers_are_exact(dtype: KVDtype, scale: float) -> None:
    """All that the emulated engine stores, in whatever company, and times any power of two."""
    values = np.array([[i, j] for i in range(-15, 16) for j in range(-15, 16)], np.float32) * np.float32(scale)
    assert np.array_equal(values, through(values, dtype))


@given(values=ROWS)
def test_fp8_is_within_its_precision(values: Float32s) -> None:
    """An element is off by a sixteenth of itself at most, or by half a step of the row's smallest magnitudes."""
    exact = values.astype(np.float64)
    largest = np.maximum(np.abs(exact).max(axis=-1, keepdims=True), 224 * SMALLEST_SCALE)
    error = np.abs(through(values, "fp8") - exact)
    assert (error <= np.maximum(np.abs(exact) / 16, largest / 224 * 2.0**-10)).all()


def test_fp8_of_next_to_nothing() -> None:
    """Below the smallest scale there are coarser steps for what is there, never another sign or a large value."""
    held = through(np.array([[2.0**-140, -(2.0**-134), 0, 0]], np.float32), "fp8")
    assert [[0.0, -(2.0**-134), 0.0, 0.0]] == held.tolist()


@example(values=np.array([[1.114e-40, 0, 0, 0]], np.float32))
@given(values=ROWS)
def test_wider_types_keep_what_fp8_holds(values: Float32s) -> None:
    """Through bf16 and back nothing changes, as the scale is a power of two; but bf16 has no steps next to nothing."""
    values = np.where(np.abs(values).max(axis=-1, keepdims=True) > NEXT_TO_NOTHING, values, np.float32(0))
    held = through(values, "fp8")
    assert np.array_equal(held, through(held, "bf16"))
    assert np.array_equal(held, through(through(held, "bf16"), "fp8"))


@given(values=ROWS)
def test_scale_uses_the_range(values: Float32s) -> None:
    """The largest element of a row lies in (224, 448] of its scale, unless the row is next to nothing."""
    _, scales = encode(values, "fp8")
    assert scales is not None
    for row, scale in zip(values, scales.tolist(), strict=True):
        largest = float(np.abs(row).max())
        if largest > NEXT_TO_NOTHING:
            assert 224 < largest / math.ldexp(1.0, scale - 127) <= 448


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("broken", [math.nan, math.inf, -math.inf])
def test_a_broken_row_stays_broken(dtype: KVDtype, broken: float) -> None:
    """What is not finite is never passed on as a number; its neighbours are not concerned."""
    values = np.array([[1.0, broken], [1.0, 2.0]], np.float32)
    found = through(values, dtype)
    assert not np.isfinite(found[0, 1])
    assert found[1].tolist() == [1.0, 2.0]


def test_zeroed_memory_reads_as_zeros() -> None:
    """Whatever the type: R10 zeroes bytes, not numbers."""
    assert not decode(np.zeros((2, 4), np.uint8), np.zeros(2, np.uint8), "fp8").any()


@pytest.mark.torch
def test_same_as_torch() -> None:
    """bf16, fp16 and e4m3 round as torch does."""
    torch = pytest.importorskip("torch")
    values = np.random.default_rng(0).standard_normal((4000, 8)).astype(np.float32)
    values *= np.exp2(np.arange(4000, dtype=np.float32)[:, None] % 24 - 12)
    given_values = torch.from_numpy(values)
    assert np.array_equal(given_values.bfloat16().float().numpy(), through(values, "bf16"))
    assert np.array_equal(given_values.half().float().numpy(), through(values, "fp16"))
    stored, scales = encode(values, "fp8")
    assert scales is not None
    scaled = given_values * torch.exp2(127.0 - torch.from_numpy(scales).float())[:, None]
    assert np.array_equal(scaled.to(torch.float8_e4m3fn).view(torch.uint8).numpy(), stored)
