"""The KV pool as the decoder reads and writes it: the canonical layout, addressed by rows.

    pool = [block][layer][K | V][kv_head][token][head_dim]

Seen as a matrix, the pool has one *token row* of ``head_dim`` elements per position, and one *head run* of
``block_tokens`` such rows per block, each for a layer, K or V, and head. Row numbers are worked out for layer 0 once
per step; another layer's rows lie a constant further. What a row looks like in memory is ``kv_rows``' concern.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from twinfer.core.layout import KVLayout
from twinfer.model.dtypes import TORCH
from twinfer.model.kv_rows import kv_rows, stored_shape


def pool_tensor(buffer: memoryview, layout: KVLayout, num_blocks: int) -> Tensor:
    """A pool over a writable buffer of ``num_blocks * block_bytes`` bytes, which it keeps alive; nothing is copied."""
    dtype = TORCH[layout.dtype]
    count = num_blocks * layout.block_bytes // dtype.itemsize
    return torch.frombuffer(buffer, dtype=dtype, count=count).view(num_blocks, *stored_shape(layout))


class PagedKV:
    """Reads and writes a pool ``[num_blocks, *stored_shape(layout)]``; does not own it.

    Args:
        pool: on any device.
        layout: of its blocks.
        scratch: a block that no sequence is ever given, where steps may put what nobody needs; ``None`` for none.
    """

    def __init__(self, pool: Tensor, layout: KVLayout, scratch: int | None = None) -> None:
        if pool.shape[1:] != stored_shape(layout) or pool.dtype != TORCH[layout.dtype]:
            raise ValueError(f"a pool of {tuple(pool.shape)} {pool.dtype} does not have the layout {layout}")
        self.pool = pool
        self.layout = layout
        self.scratch = scratch
        self._heads_per_layer = 2 * layout.num_kv_heads
        self._heads_per_block = layout.num_layers * self._heads_per_layer
        self._rows = kv_rows(pool, layout)
        self._heads = torch.arange(self._heads_per_layer, device=pool.device)

    def zero(self, blocks: Sequence[int]) -> None:
        """Clear whole blocks."""
        if blocks:
            self.pool.index_fill_(0, torch.tensor(blocks, device=self.pool.device), 0)

    def write_rows(self, blocks: Tensor, offsets: Tensor) -> Tensor:
        """Layer 0's token rows of positions ``offsets [T]`` in ``blocks [T]``: flat, in order (T, K | V, kv_head)."""
        heads = blocks[:, None] * self._heads_per_block + self._heads
        return (heads * self.layout.block_tokens + offsets[:, None]).flatten()

    def write(self, layer: int, rows: Tensor, keys_values: Tensor) -> None:
        """Store ``keys_values [T, 2 * kv_heads, head_dim]``, keys first, at the rows that ``write_rows`` gave."""
        self._rows.put(layer * self._heads_per_layer, rows, keys_values.reshape(-1, self.layout.head_dim))

    def read_rows(self, tables: Tensor) -> Tensor:
        """Layer 0's head runs of ``tables [B, M]``: flat, in order (K | V, B, kv_head, M)."""
        heads = self._heads.view(2, 1, self.layout.num_kv_heads, 1)
        return (tables[None, :, None, :] * self._heads_per_block + heads).flatten()

    def read(self, layer: int, rows: Tensor, num_sequences: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Copy out the K and V that ``read_rows`` names, each ``[B, kv_heads, M * block_tokens, head_dim]``."""
        found = self._rows.take(layer * self._heads_per_layer, rows, dtype)
        keys, values = found.view(2, num_sequences, self.layout.num_kv_heads, -1, self.layout.head_dim).unbind(0)
        return keys, values
