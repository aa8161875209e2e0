"""A KV pool seen as small numbers with numpy, for whoever needs its values without torch.

numpy has no bfloat16, so such elements are handled as the upper half of a float32.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from twinfer.core.layout import KVDtype, KVLayout

_STORAGE: dict[KVDtype, type[np.generic]] = {"fp32": np.float32, "fp16": np.float16, "bf16": np.uint16}


class ElementView:
    """Token rows of a pool in the canonical layout, read and written as float32 values.

    Args:
        buffer: the pool's bytes, writable.
        layout: how they are laid out; fp8 has no numpy form.
    """

    def __init__(self, buffer: memoryview, layout: KVLayout) -> None:
        if layout.dtype not in _STORAGE:
            raise ValueError(f"a pool of {layout.dtype} cannot be viewed with numpy; use fp32, bf16 or fp16")
        self._layout = layout
        storage = np.frombuffer(buffer, dtype=_STORAGE[layout.dtype])
        self._blocks = storage.reshape(-1, *layout.block_shape)

    def zero_block(self, block: int) -> None:
        """Overwrite a whole block with zeros."""
        self._blocks[block] = 0

    def write_tokens(self, block_table: Sequence[int], start: int, rows: NDArray[np.int8]) -> None:
        """Store one row of elements per position, from position ``start`` on.

        Args:
            block_table: pool block of every ``block_tokens`` positions of the sequence.
            start: first position written.
            rows: ``[positions, layers * 2 * heads * head_dim]``, in that element order.
        """
        size = self._layout.block_tokens
        done = 0
        while done < len(rows):
            block, offset = divmod(start + done, size)
            num = min(size - offset, len(rows) - done)
            part = self._encode(rows[done : done + num]).reshape(num, *self._row_shape)
            self._blocks[block_table[block], :, :, :, offset : offset + num] = part.transpose(1, 2, 3, 0, 4)
            done += num

    def read_tokens(self, block_table: Sequence[int], num_tokens: int) -> NDArray[np.float32]:
        """The rows of the first ``num_tokens`` positions, ``[positions, layers * 2 * heads * head_dim]``."""
        size = self._layout.block_tokens
        table = list(block_table[: -(-num_tokens // size)])
        blocks = self._decode(self._blocks[table])
        rows = blocks.transpose(0, 4, 1, 2, 3, 5).reshape(len(table) * size, -1)
        return rows[:num_tokens]

    @property
    def _row_shape(self) -> tuple[int, int, int, int]:
        return (self._layout.num_layers, 2, self._layout.num_kv_heads, self._layout.head_dim)

    def _encode(self, rows: NDArray[np.int8]) -> NDArray[np.generic]:
        values = rows.astype(np.float32)
        if self._layout.dtype == "bf16":
            return (values.view(np.uint32) >> np.uint32(16)).astype(np.uint16)
        return values.astype(_STORAGE[self._layout.dtype])

    def _decode(self, stored: NDArray[np.generic]) -> NDArray[np.float32]:
        if self._layout.dtype == "bf16":
            return (stored.astype(np.uint32) << np.uint32(16)).view(np.float32)
        return stored.astype(np.float32)
