"""Quantised K and V: the bytes that the wire defines, and as near to what was written as they can be."""

import numpy as np
import pytest
import torch

from twinfer.core.layout import KVLayout
from twinfer.kv.elements import BlockArrays
from twinfer.kv.formats import encode
from twinfer.model.kv_rows import quantise
from twinfer.model.paged_kv import PagedKV, pool_tensor

pytestmark = pytest.mark.torch

LAYOUT = KVLayout(num_layers=3, num_kv_heads=2, head_dim=4, block_tokens=5, dtype="fp8")
MAX_ERROR = 1 / 16
"""Of an element, relative to itself: half a step of three bits of mantissa."""


def random_values(*shape: int) -> torch.Tensor:
    """Values over many magnitudes."""
    generator = torch.Generator().manual_seed(0)
    return (
        torch.randn(shape, generator=generator)
        * torch.exp2(torch.randn(shape[0], generator=generator) * 9)[(...,) + (None,) * (len(shape) - 1)]
    )


def test_same_bytes_as_the_wire_format() -> None:
    """torch and numpy quantise alike, non-finite rows included."""
    values = random_values(3000, 8)
    values[5, 3], values[6, 0], values[7] = torch.inf, -torch.inf, 0.0
    elements, scales = quantise(values)
    expected, expected_scales = encode(values.numpy(), "fp8")
    finite = torch.isfinite(values).all(dim=-1).numpy()
    assert np.array_equal(expected[finite], elements.numpy()[finite])
    assert np.array_equal(expected_scales, scales.numpy())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_write_then_read(dtype: torch.dtype) -> None:
    """What comes back is what was written, to the format's precision, at its own place in every layer."""
    buffer = bytearray(8 * LAYOUT.block_bytes)
    kv = PagedKV(pool_tensor(memoryview(buffer), LAYOUT, 8), LAYOUT)
    table, positions = torch.tensor([6, 1, 3]), torch.arange(12)
    rows = kv.write_rows(table[positions // 5], positions % 5)
    written = random_values(3, 12, 4, 4).to(dtype)
    for layer in range(3):
        kv.write(layer, rows, written[layer])
    arrays = BlockArrays(memoryview(buffer), LAYOUT)
    for layer in range(3):
        keys, values = kv.read(layer, kv.read_rows(table[None]), 1, dtype)
        assert (keys.dtype, tuple(keys.shape)) == (dtype, (1, 2, 15, 4))
        found = torch.cat([keys[0, :, :12], values[0, :, :12]]).transpose(0, 1).float()
        expected = written[layer].float()
        slack = expected.abs().amax(-1, keepdim=True) * 2.0**-17
        assert bool(((found - expected).abs() <= expected.abs() * MAX_ERROR + slack).all())
        from_wire = torch.from_numpy(arrays.read(1, slice(0, 5), slice(layer, layer + 1)))
        assert torch.equal(from_wire[0, 0].to(dtype), keys[0, :, 5:10])


def test_a_write_leaves_its_neighbours() -> None:
    """A decode step writes one position: the scales of the others stay theirs."""
    kv = PagedKV(pool_tensor(memoryview(bytearray(2 * LAYOUT.block_bytes)), LAYOUT, 2), LAYOUT)
    values = torch.randn(5, 4, 4, generator=torch.Generator().manual_seed(1))
    at_once = kv.write_rows(torch.zeros(5, dtype=torch.int64), torch.arange(5))
    kv.write(1, at_once, values)
    for position in (3, 0, 4, 1, 2):
        rows = kv.write_rows(torch.tensor([1]), torch.tensor([position]))
        kv.write(1, rows, values[position : position + 1] * 1000)
        kv.write(1, rows, values[position : position + 1])
    assert torch.equal(kv.pool[0], kv.pool[1])


def test_zeroed_blocks_read_as_zeros() -> None:
    """R10 in fp8: elements and scales."""
    buffer = bytearray(b"\x7c" * (2 * LAYOUT.block_bytes))
    kv = PagedKV(pool_tensor(memoryview(buffer), LAYOUT, 2), LAYOUT)
    kv.zero((1,))
    keys, values = kv.read(2, kv.read_rows(torch.tensor([[1]])), 1, torch.float32)
    assert not keys.any()
    assert not values.any()
    assert buffer[: LAYOUT.block_bytes] == b"\x7c" * LAYOUT.block_bytes
