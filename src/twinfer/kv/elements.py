"""KV blocks seen as numbers with numpy, for whoever needs their values without torch."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from twinfer.core.layout import SCALE_BYTES, KVLayout
from twinfer.kv.formats import STORAGE, Float32s, Scales, Stored, decode, encode
from twinfer.kv.runs import copy_runs

ALL = slice(None)


class BlockArrays:
    """Consecutive blocks of a buffer, which they alias.

    Attributes:
        elements: ``[block, layer, K | V, kv_head, token, head_dim]`` as they are stored.
        scales: of fp8, ``[block, layer, K | V, kv_head, token]``.
    """

    def __init__(self, buffer: memoryview, layout: KVLayout) -> None:
        self.layout = layout
        storage = STORAGE[layout.dtype]
        heads = (buffer.nbytes // layout.block_bytes, layout.num_layers, 2, layout.num_kv_heads)
        runs = np.frombuffer(buffer, np.uint8).reshape(*heads, layout.head_bytes)
        row_bytes = layout.head_dim * storage.itemsize
        shape, strides = (
            (*heads, layout.block_tokens, layout.head_dim),
            (*runs.strides[:-1], row_bytes, storage.itemsize),
        )
        self.elements: Stored = np.ndarray(shape, storage, runs.data, 0, strides)
        self.scales: Scales | None = None
        if SCALE_BYTES[layout.dtype]:
            self.scales = runs[..., layout.block_tokens * row_bytes :]
        self._num_blocks, self._num_runs = len(runs), 2 * layout.num_layers * layout.num_kv_heads
        self._address, self._row_bytes = runs.ctypes.data if runs.size else 0, row_bytes
        self._head_bytes, self._block_bytes = layout.head_bytes, layout.block_bytes

    def copy(self, block: int, token: int, num_tokens: int, source: "BlockArrays", place: tuple[int, int]) -> None:
        """Take tokens as another array stores them, from a block and token of it. What else lies in the block stays.

        Raises:
            IndexError: they do not lie in one block of each.
        """
        into, taken = self._at(block, token, num_tokens), source._at(*place, num_tokens)
        copy_runs(into, taken, self._num_runs, num_tokens * self._row_bytes, self._head_bytes, source._head_bytes)
        if self.scales is not None and source.scales is not None:
            theirs = source.scales[place[0], ..., place[1] : place[1] + num_tokens]
            self.scales[block, ..., token : token + num_tokens] = theirs

    def zero(self, block: int, first_token: int = 0) -> None:
        """Overwrite a block with zeros, from a token on."""
        self.elements[block, :, :, :, first_token:] = 0
        if self.scales is not None:
            self.scales[block, :, :, :, first_token:] = 0

    def read(self, block: int, tokens: slice, layers: slice = ALL) -> Float32s:
        """Values of some tokens and layers, ``[layer, K | V, kv_head, token, head_dim]``."""
        scales = None if self.scales is None else self.scales[block, layers, :, :, tokens]
        return decode(self.elements[block, layers, :, :, tokens], scales, self.layout.dtype)

    def write(self, block: int, tokens: slice, values: Float32s, layers: slice = ALL) -> None:
        """Store values of some tokens and layers, in the same shape."""
        stored, scales = encode(values, self.layout.dtype)
        self.elements[block, layers, :, :, tokens] = stored
        if self.scales is not None and scales is not None:
            self.scales[block, layers, :, :, tokens] = scales

    def _at(self, block: int, token: int, num_tokens: int) -> int:
        """The address of a token in the first layer's keys of the first head."""
        if not 0 <= block < self._num_blocks or token < 0 or not 0 < num_tokens <= self.layout.block_tokens - token:
            raise IndexError(f"no {num_tokens} tokens from {token} on in block {block} of {self._num_blocks}")
        return self._address + block * self._block_bytes + token * self._row_bytes


class ElementView:
    """Token rows of a pool in the canonical layout, read and written as small numbers.

    Args:
        buffer: the pool's bytes, writable.
        layout: how they are laid out.
    """

    def __init__(self, buffer: memoryview, layout: KVLayout) -> None:
        self._layout = layout
        self._blocks = BlockArrays(buffer, layout)

    def zero_block(self, block: int) -> None:
        """Overwrite a whole block with zeros."""
        self._blocks.zero(block)

    def write_tokens(self, block_table: Sequence[int], start: int, rows: NDArray[np.int8]) -> None:
        """Store one row of elements per position, from position ``start`` on.

        Args:
            block_table: pool block of every ``block_tokens`` positions of the sequence.
            start: first position written.
            rows: ``[positions, layers * 2 * heads * head_dim]``, in that element order.
        """
        size, (layers, kinds, heads, _, head_dim) = self._layout.block_tokens, self._layout.block_shape
        done = 0
        while done < len(rows):
            block, offset = divmod(start + done, size)
            num = min(size - offset, len(rows) - done)
            part = rows[done : done + num].reshape(num, layers, kinds, heads, head_dim)
            values = np.ascontiguousarray(part.transpose(1, 2, 3, 0, 4), np.float32)
            self._blocks.write(block_table[block], slice(offset, offset + num), values)
            done += num

    def read_tokens(self, block_table: Sequence[int], num_tokens: int) -> Float32s:
        """The rows of the first ``num_tokens`` positions, ``[positions, layers * 2 * heads * head_dim]``."""
        size, blocks = self._layout.block_tokens, self._blocks
        table = list(block_table[: -(-num_tokens // size)])
        scales = None if blocks.scales is None else blocks.scales[table]
        values = decode(blocks.elements[table], scales, self._layout.dtype)
        rows = values.transpose(0, 4, 1, 2, 3, 5).reshape(len(table) * size, -1)
        return rows[:num_tokens]
