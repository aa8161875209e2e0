"""A batch of single tokens, worked out on the device from one tensor of integers, without looking at what it holds.

``batch.BatchBuilder`` makes the same of slices, on the host, in shapes that fit them. Here shapes are those of the
inputs alone, so that all that is done may be recorded and repeated.
"""

from collections.abc import Iterable

import torch
from torch import Tensor

from twinfer.model.batch import AttentionView, Batch, DecodeGroup
from twinfer.model.paged_kv import PagedKV

TOKEN, POSITION, BLOCKS = 0, 1, 2
"""Columns of the inputs; blocks take the rest."""


def fixed_batch(inputs: Tensor, kv: PagedKV, windows: Iterable[int], dtype: torch.dtype) -> Batch:
    """What ``inputs`` mean, without looking at what they hold.

    Args:
        inputs: ``[B, 2 + M]``: token, position and blocks of each sequence. Only blocks up to the position's count.
        kv: where they lie.
        windows: of all layers.
        dtype: of the scores.
    """
    positions, tables = inputs[:, POSITION], inputs[:, BLOCKS:]
    rows = torch.arange(len(inputs), device=inputs.device)
    last_blocks = positions // kv.layout.block_tokens
    written = tables.gather(1, last_blocks[:, None])[:, 0]

    def view(window: int) -> AttentionView:
        first_blocks = (positions - window + 1).clamp(min=0) // kv.layout.block_tokens if window else last_blocks * 0
        steps = torch.arange(_num_seen(window, kv.layout.block_tokens, tables.shape[1]), device=inputs.device)
        numbers = first_blocks[:, None] + steps
        seen = tables.gather(1, numbers.minimum(last_blocks[:, None]))
        hidden = _hidden(numbers, positions, window, kv.layout.block_tokens)
        mask = torch.zeros(hidden.shape, dtype=dtype, device=hidden.device).masked_fill_(hidden, -torch.inf)
        return AttentionView(window, (DecodeGroup(rows, kv.read_rows(seen), mask[:, None, None]),), ())

    return Batch(
        token_ids=inputs[:, TOKEN],
        positions=positions,
        write_rows=kv.write_rows(written, positions % kv.layout.block_tokens),
        views={window: view(window) for window in windows},
        sample_rows=rows,
    )


def _num_seen(window: int, block_tokens: int, num_blocks: int) -> int:
    """Blocks that a window can touch, wherever in a block it ends."""
    return min(num_blocks, (window + block_tokens - 2) // block_tokens + 1) if window else num_blocks


def _hidden(numbers: Tensor, positions: Tensor, window: int, block_tokens: int) -> Tensor:
    """Whether queries at ``positions [B]`` must not see each position of blocks ``numbers [B, M]``: ``[B, S]``."""
    offsets = torch.arange(block_tokens, device=numbers.device)
    keys = (numbers[:, :, None] * block_tokens + offsets).flatten(1)
    hidden = keys > positions[:, None]
    return hidden | (keys <= positions[:, None] - window) if window else hidden
