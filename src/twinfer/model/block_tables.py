"""Block tables as arrays, kept from one step to the next: a long sequence's table is converted when it grows only."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from twinfer.core.ids import RequestId
from twinfer.core.step import Slice

BlockArray = NDArray[np.int64]


class BlockTables:
    """Remembers the tables of the last step's sequences, and compares: a sequence may come back with other blocks."""

    def __init__(self, block_tokens: int) -> None:
        self._block_tokens = block_tokens
        self._kept: dict[RequestId, tuple[list[int], BlockArray]] = {}

    def update(self, slices: Sequence[Slice]) -> list[BlockArray]:
        """The blocks that each slice's positions up to its end lie in."""
        kept: dict[RequestId, tuple[list[int], BlockArray]] = {}
        for part in slices:
            blocks = list(part.block_table[: -(-part.end // self._block_tokens)])
            known = self._kept.get(part.request.request_id)
            if known is None or known[0] != blocks:
                known = (blocks, np.array(blocks, np.int64))
            kept[part.request.request_id] = known
        self._kept = kept
        return [kept[part.request.request_id][1] for part in slices]


def group_by_length(lengths: Sequence[int]) -> list[list[int]]:
    """Indices of ``lengths``, longest first, in groups whose padding to the longest is at most a third of their sum."""
    groups: list[list[int]] = []
    total = 0
    for index in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        total += lengths[index]
        if groups and lengths[groups[-1][0]] * (len(groups[-1]) + 1) <= total * 4 / 3:
            groups[-1].append(index)
        else:
            groups.append([index])
            total = lengths[index]
    return groups


def padded(tables: Sequence[BlockArray]) -> BlockArray:
    """The tables as rows of one array, padded with a block of their own.

    Padding is masked, but a masked value of another sequence would still spoil this one if it were not finite.
    """
    result = np.empty((len(tables), max(map(len, tables))), np.int64)
    for row, table in zip(result, tables, strict=True):
        row[: len(table)] = table
        row[len(table) :] = table[0]
    return result
