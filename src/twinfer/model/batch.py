"""A step's slices as tensors: all tokens in one flat batch, and for attention who reads which rows of the pool.

A slice of one token that draws is a decoding one, whatever its sequence does, and is attended together with others of
similar length: whole blocks are read, and what is not computed yet is masked. Other slices are attended one by one:
they may end in a block that was not zeroed, and see nothing past their end. Layers with the same window share one
``AttentionView``.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from twinfer.core.step import Slice
from twinfer.model.block_tables import BlockArray, BlockTables, group_by_length, padded
from twinfer.model.paged_kv import PagedKV

IntArray = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class DecodeGroup:
    """B sequences with one query each.

    Attributes:
        rows: ``[B]``, their rows of the batch.
        kv_rows: the pool's rows of their blocks (``PagedKV.read_rows``), padded to S positions each.
        mask: ``[B, 1, 1, S]``, added to the scores: 0 or minus infinity.
    """

    rows: Tensor
    kv_rows: Tensor
    mask: Tensor


@dataclass(frozen=True, slots=True)
class PrefillPart:
    """One sequence with many queries, rows ``[first_row, last_row)`` of the batch.

    Attributes:
        start: position of the first query.
        first_key: position of the first key that ``kv_rows`` names; the last is the last query's own.
        kv_rows: the pool's rows of its blocks.
    """

    first_row: int
    last_row: int
    start: int
    first_key: int
    kv_rows: Tensor


@dataclass(frozen=True, slots=True)
class AttentionView:
    """What layers of one window attend to."""

    window: int
    decodes: tuple[DecodeGroup, ...]
    prefills: tuple[PrefillPart, ...]


@dataclass(frozen=True, slots=True)
class Batch:
    """T tokens to compute.

    Attributes:
        token_ids: ``[T]``.
        positions: ``[T]``, each within its sequence.
        write_rows: where the pool takes their K and V (``PagedKV.write_rows``).
        views: by window.
        sample_rows: rows whose logits are wanted, in the order of the slices that draw.
    """

    token_ids: Tensor
    positions: Tensor
    write_rows: Tensor
    views: Mapping[int, AttentionView]
    sample_rows: Tensor


class BatchBuilder:
    """Makes batches for one pool and one set of windows; remembers block tables between steps."""

    def __init__(self, kv: PagedKV, windows: Sequence[int], dtype: torch.dtype) -> None:
        self._kv = kv
        self._windows = sorted(set(windows))
        self._dtype = dtype
        self._block_tokens = kv.layout.block_tokens
        self._tables = BlockTables(self._block_tokens)

    def build(self, slices: Sequence[Slice]) -> Batch:
        """Lay out at least one slice. Every slice has at least one token."""
        tables = self._tables.update(slices)
        positions = [np.arange(part.start, part.end) for part in slices]
        blocks = [table[at // self._block_tokens] for table, at in zip(tables, positions, strict=True)]
        flat = np.concatenate(positions)
        last_rows = np.cumsum([len(part.token_ids) for part in slices])
        drawing = [part.sample_index is not None for part in slices]
        return Batch(
            token_ids=self._tensor(np.concatenate([np.asarray(part.token_ids, np.int64) for part in slices])),
            positions=self._tensor(flat),
            write_rows=self._kv.write_rows(
                self._tensor(np.concatenate(blocks)), self._tensor(flat % self._block_tokens)
            ),
            views={window: self._view(window, slices, tables, last_rows) for window in self._windows},
            sample_rows=self._tensor(last_rows[drawing] - 1),
        )

    def _view(
        self, window: int, slices: Sequence[Slice], tables: list[BlockArray], last_rows: IntArray
    ) -> AttentionView:
        first_blocks = [max(0, part.start - window + 1) // self._block_tokens if window else 0 for part in slices]
        seen = [table[first:] for table, first in zip(tables, first_blocks, strict=True)]
        decoding = [i for i, part in enumerate(slices) if is_decoding(part)]
        groups = group_by_length([len(seen[i]) for i in decoding])
        ends = np.array([part.end for part in slices])
        first_keys = np.array(first_blocks) * self._block_tokens
        decodes = [
            self._decode_group(members, window, [seen[i] for i in members], (last_rows, ends, first_keys))
            for members in ([decoding[i] for i in group] for group in groups)
        ]
        prefills = [
            PrefillPart(
                first_row=int(last_rows[i]) - len(part.token_ids),
                last_row=int(last_rows[i]),
                start=part.start,
                first_key=int(first_keys[i]),
                kv_rows=self._kv.read_rows(self._tensor(seen[i][None])),
            )
            for i, part in enumerate(slices)
            if not is_decoding(part)
        ]
        return AttentionView(window, tuple(decodes), tuple(prefills))

    def _decode_group(
        self, members: list[int], window: int, tables: list[BlockArray], per_slice: tuple[IntArray, IntArray, IntArray]
    ) -> DecodeGroup:
        last_rows, ends, first_keys = (values[members, None] for values in per_slice)
        table = padded(tables)
        keys = np.arange(table.shape[1] * self._block_tokens) + first_keys
        visible = keys < ends
        if window:
            visible &= keys >= ends - window
        mask = torch.zeros(visible.shape, dtype=self._dtype)
        mask.masked_fill_(torch.from_numpy(~visible), -torch.inf)
        return DecodeGroup(
            rows=self._tensor(last_rows[:, 0] - 1),
            kv_rows=self._kv.read_rows(self._tensor(table)),
            mask=mask[:, None, None, :].to(self._kv.pool.device),
        )

    def _tensor(self, values: IntArray) -> Tensor:
        return torch.from_numpy(values).to(self._kv.pool.device)


def is_decoding(part: Slice) -> bool:
    """Whether a slice is a decoding one: its blocks are whole or were zeroed."""
    return len(part.token_ids) == 1 and part.sample_index is not None
