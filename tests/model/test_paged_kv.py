import mmap
import os

import pytest
import torch

from twinfer.core.layout import KVLayout
from twinfer.model.paged_kv import PagedKV, pool_tensor

pytestmark = pytest.mark.torch

LAYOUT = KVLayout(num_layers=3, num_kv_heads=2, head_dim=4, block_tokens=5, dtype="fp32")


def test_pool_over_shared_memory() -> None:
    """A pool is the buffer's own bytes, in the canonical order."""
    size = 6 * LAYOUT.block_bytes
    descriptor = os.memfd_create("pool")
    os.ftruncate(descriptor, size)
    with mmap.mmap(descriptor, size) as memory:
        os.close(descriptor)
        pool = pool_tensor(memoryview(memory), LAYOUT, 6)
        assert (6, *LAYOUT.block_shape) == tuple(pool.shape)
        pool[2, 1, 1, 0, 3, 2] = 1.0
        element = (((((2 * 3) + 1) * 2 + 1) * 2 + 0) * 5 + 3) * 4 + 2
        assert torch.tensor([1.0]).numpy().tobytes() == memory[element * 4 : element * 4 + 4]
        assert pool.sum().item() == 1.0
        del pool


def test_write_then_read() -> None:
    """What is written for a position comes back at its place of the gathered table, in every layer."""
    pool = torch.zeros(8, *LAYOUT.block_shape)
    kv = PagedKV(pool, LAYOUT)
    table = torch.tensor([6, 1, 3])
    positions = torch.arange(12)
    generator = torch.Generator().manual_seed(0)
    rows = kv.write_rows(table[positions // 5], positions % 5)
    written = [torch.randn(12, 4, 4, generator=generator) for _ in range(3)]
    for layer, values in enumerate(written):
        kv.write(layer, rows, values)
    for layer, values in enumerate(written):
        keys, found = kv.read(layer, kv.read_rows(table[None]), 1, torch.float32)
        assert tuple(keys.shape) == (1, 2, 15, 4)
        assert torch.equal(values[:, :2].transpose(0, 1), keys[0, :, :12])
        assert torch.equal(values[:, 2:].transpose(0, 1), found[0, :, :12])
        assert torch.equal(values[7, 1], pool[1, layer, 0, 1, 2])
        assert torch.equal(values[11, 2], pool[3, layer, 1, 0, 1])


def test_several_sequences() -> None:
    """Gathered rows are in the order of the tables."""
    pool = torch.randn(8, *LAYOUT.block_shape, generator=torch.Generator().manual_seed(0))
    kv = PagedKV(pool, LAYOUT)
    tables = torch.tensor([[4, 0], [7, 7], [2, 5]])
    keys, values = kv.read(1, kv.read_rows(tables), 3, torch.float64)
    for i, blocks in enumerate(tables.tolist()):
        for head in range(2):
            expected = torch.cat([pool[block, 1, :, head] for block in blocks], dim=1).double()
            assert torch.equal(expected, torch.stack([keys[i, head], values[i, head]]))


def test_zero() -> None:
    """Zeroing clears whole blocks and no other."""
    pool = torch.ones(4, *LAYOUT.block_shape)
    kv = PagedKV(pool, LAYOUT)
    kv.zero(())
    kv.zero((3, 1))
    assert [pool[block].mean().item() for block in range(4)] == [1.0, 0.0, 1.0, 0.0]
    assert pool[1].abs().max().item() == 0.0


def test_cast_on_write_and_read() -> None:
    """A narrower pool rounds once, on the way in."""
    layout = KVLayout(3, 2, 4, 5, "bf16")
    pool = torch.zeros(2, *layout.block_shape, dtype=torch.bfloat16)
    kv = PagedKV(pool, layout)
    values = torch.randn(1, 4, 4, generator=torch.Generator().manual_seed(0))
    kv.write(0, kv.write_rows(torch.tensor([1]), torch.tensor([0])), values)
    keys, _ = kv.read(0, kv.read_rows(torch.tensor([[1]])), 1, torch.float32)
    assert torch.float32 == keys.dtype
    assert torch.equal(values[0, :2].bfloat16().float(), keys[0, :, 0])


def test_wrong_pool() -> None:
    """A pool of another shape or type is a mistake of the caller."""
    for pool in (torch.zeros(2, 3, 2, 2, 4, 4), torch.zeros(2, *LAYOUT.block_shape, dtype=torch.float16)):
        with pytest.raises(ValueError, match="does not have the layout"):
            PagedKV(pool, LAYOUT)
