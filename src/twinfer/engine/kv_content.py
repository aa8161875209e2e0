"""What an emulated engine keeps as the KV of a position, and how it reads it back.

The fold of a sequence is a sum of one term per position, computed from what lies in its blocks, and depends on where
each of them lies: from a wrong, stale, foreign or missing block comes another fold.
"""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from twinfer.core.layout import KVLayout
from twinfer.engine.decode_steps import Decoded, Decoding, FastDecode
from twinfer.engine.token_states import U64, splitmix64, token_hashes
from twinfer.kv.elements import ElementView

Table = Sequence[int]
"""Pool block of every ``block_tokens`` positions of a sequence; only ever appended to."""


class KVContent(Protocol):
    """The KV of positions in a pool."""

    @property
    def mask(self) -> np.uint64:
        """The bits that count of a fold: sums wrap there."""
        ...

    def zero(self, block: int) -> None:
        """Overwrite a block with zeros."""
        ...

    def write(self, table: Table, start: int, states: U64) -> None:
        """Store the KV that belongs to these states, from position ``start`` on."""
        ...

    def write_all(self, tables: Sequence[Table], starts: U64, states: U64) -> None:
        """Store the KV that belongs to equally many states of each sequence, ``[sequence, position]``."""
        ...

    def folds(self, tables: Sequence[Table], ends: Sequence[int]) -> U64:
        """Read back the first ``ends`` positions of sequences: one fold for each."""
        ...

    def terms(self, states: U64, positions: U64) -> U64:
        """What positions add to their folds once they hold what belongs to these states."""
        ...

    def decode(self, work: Decoding) -> Decoded:
        """Read sequences back, take their steps, and store what belongs to the new states."""
        ...


def decode(content: KVContent, work: Decoding) -> Decoded:
    """Steps on any content."""
    starts: U64 = np.array(work.starts, np.uint64)
    positions = starts + np.arange(work.steps, dtype=np.uint64)[:, None]
    hashes, salts, state = splitmix64(positions), np.array(work.salts, np.uint64), np.array(work.before, np.uint64)
    totals = content.folds(work.tables, work.starts)
    states, tokens = np.empty((2, *positions.shape), np.uint64)
    last: U64 = np.array(work.token_ids, np.uint64)
    for step in range(work.steps):
        state = state + token_hashes(last, hashes[step], salts)
        totals = totals + content.terms(state, positions[step])
        drawn = splitmix64(totals & content.mask) % np.uint64(work.draw_below)
        last = drawn if work.given is None else np.array(work.given[step], np.uint64)
        states[step], tokens[step] = state, last
    content.write_all(work.tables, starts, states.T)
    return Decoded(states, tokens)


class Elements:
    """Real KV: small integers in [-8, 8) for every layer, head and element, exact in every KV dtype.

    They survive conversion on the way to another worker.
    """

    mask = np.uint64(2**64 - 1)

    def __init__(self, pool: memoryview, layout: KVLayout) -> None:
        self._view = ElementView(pool, layout)
        lanes = np.arange(2 * layout.num_layers * layout.num_kv_heads * layout.head_dim, dtype=np.uint64)
        self._keys = splitmix64(lanes)
        self._weights = splitmix64(lanes ^ np.uint64(0x5EED)) | np.uint64(1)

    def zero(self, block: int) -> None:
        """Overwrite a block with zeros."""
        self._view.zero_block(block)

    def write(self, table: Table, start: int, states: U64) -> None:
        """Store the elements that belong to these states."""
        self._view.write_tokens(table, start, self._elements(states))

    def write_all(self, tables: Sequence[Table], starts: U64, states: U64) -> None:
        """Store the elements that belong to these states, sequence by sequence."""
        for table, start, own in zip(tables, starts.tolist(), states, strict=True):
            self.write(table, start, own)

    def folds(self, tables: Sequence[Table], ends: Sequence[int]) -> U64:
        """Read back all elements of all positions."""
        return np.array([self._fold(*one) for one in zip(tables, ends, strict=True)], np.uint64)

    def terms(self, states: U64, positions: U64) -> U64:
        """One term per position out of all its elements."""
        return self._terms(self._elements(states).astype(np.int64).view(np.uint64), positions)

    def decode(self, work: Decoding) -> Decoded:
        """Take steps, sequences side by side."""
        return decode(self, work)

    def _fold(self, table: Table, end: int) -> np.uint64:
        if not end:
            return np.uint64(0)
        rows = self._view.read_tokens(table, end).astype(np.int64).view(np.uint64)
        return np.uint64(self._terms(rows, np.arange(end, dtype=np.uint64)).sum(dtype=np.uint64))

    def _terms(self, rows: U64, positions: U64) -> U64:
        return splitmix64((rows @ self._weights) ^ splitmix64(positions))

    def _elements(self, states: U64) -> NDArray[np.int8]:
        return (splitmix64(states[:, None] ^ self._keys) >> np.uint64(60)).astype(np.int8) - np.int8(8)


class Fingerprints:
    """Virtual KV: 64 bits stand for all that a position's KV would be, in its key and its value.

    Args:
        pool: the pool's bytes.
        layout: of one layer with one head of one 32-bit element, see ``core.layout``.
        fast: takes steps in C; ``None`` takes them in numpy.
    """

    mask = np.uint64(2**32 - 1)

    def __init__(self, pool: memoryview, layout: KVLayout, fast: FastDecode | None = None) -> None:
        self._fast = fast
        self._size = layout.block_tokens
        self._words = np.frombuffer(pool, np.uint32).reshape(-1, 2 * self._size)
        self._weights = self._odd_weights(64)
        self._blocks, self._tokens = np.arange(64), np.tile(np.arange(self._size), 2)
        self._tables: list[Table] = []
        self._index = np.zeros((0, 0), np.intp)
        self._known: list[int] = []

    def zero(self, block: int) -> None:
        """Overwrite a block with zeros."""
        self._words[block] = 0

    def write(self, table: Table, start: int, states: U64) -> None:
        """Store the fingerprints of these states."""
        indices, offsets = np.divmod(np.arange(start, start + len(states)), self._size)
        self._put(np.asarray(table, np.intp)[indices], offsets, states)

    def write_all(self, tables: Sequence[Table], starts: U64, states: U64) -> None:
        """Store the fingerprints of these states, all at once."""
        self._take_in(tables)
        positions = starts.astype(np.intp)[:, None] + np.arange(states.shape[1])
        indices, offsets = np.divmod(positions, self._size)
        self._put(np.take_along_axis(self._index, indices, axis=1), offsets, states)

    def folds(self, tables: Sequence[Table], ends: Sequence[int]) -> U64:
        """Read back the fingerprints of all positions."""
        self._take_in(tables)
        self._reach(self._index.shape[1])
        whole, rest = np.divmod(np.asarray(ends, np.intp), self._size)
        num_blocks = int(whole.max(initial=-1)) + 1
        blocks, rows = self._index[:, :num_blocks], np.arange(len(ends))
        words = self._words.take(blocks, axis=0, mode="clip")
        by_block: NDArray[np.uint32] = np.einsum("sbw,bw->sb", words, self._weights[:num_blocks])
        by_block *= self._blocks[:num_blocks] < whole[:, None]
        last: NDArray[np.uint32] = self._words[self._index[rows, whole]] * self._weights[whole]
        last *= self._tokens < rest[:, None]
        folds: U64 = by_block.sum(axis=1, dtype=np.uint64) + last.sum(axis=1, dtype=np.uint64)
        return folds & self.mask

    def terms(self, states: U64, positions: U64) -> U64:
        """One term per position out of its fingerprint."""
        words = splitmix64(states).view(np.uint32).reshape(-1, 2)
        indices, offsets = np.divmod(positions.astype(np.intp), self._size)
        self._reach(int(indices.max(initial=0)) + 1)
        keys, values = self._weights[indices, offsets], self._weights[indices, offsets + self._size]
        found: U64 = (words[:, 0] * keys + words[:, 1] * values).astype(np.uint64)
        return found

    def decode(self, work: Decoding) -> Decoded:
        """Take steps, sequence by sequence in C, or else side by side."""
        if self._fast is None:
            return decode(self, work)
        self._take_in(work.tables)
        self._reach(self._index.shape[1])
        return self._fast(self._words, self._weights, self._index, work)

    def _put(self, blocks: NDArray[np.intp], offsets: NDArray[np.intp], states: U64) -> None:
        words = splitmix64(states)
        self._words[blocks, offsets] = words & np.uint64(2**32 - 1)
        self._words[blocks, offsets + self._size] = words >> np.uint64(32)

    def _reach(self, num_blocks: int) -> None:
        """See that there are weights for that many blocks of a sequence."""
        if num_blocks > len(self._weights):
            self._weights = self._odd_weights(2 * num_blocks)
            self._blocks = np.arange(2 * num_blocks)

    def _odd_weights(self, num_blocks: int) -> NDArray[np.uint32]:
        """``[block, key and value of each token]``; they depend on the position, not on the size of blocks."""
        weights = splitmix64(np.arange(num_blocks * self._size, dtype=np.uint64)).view(np.uint32) | np.uint32(1)
        by_block = weights.reshape(num_blocks, self._size, 2).transpose(0, 2, 1)
        return np.ascontiguousarray(by_block).reshape(num_blocks, 2 * self._size)

    def _take_in(self, tables: Sequence[Table]) -> None:
        """Bring the tables into one array; as long as they are the same ones, what was appended to them is enough."""
        longest = max(map(len, tables), default=0)
        same = len(tables) == len(self._tables) and all(map(lambda a, b: a is b, tables, self._tables))
        if not same or longest > self._index.shape[1]:
            self._index = np.zeros((len(tables), longest + longest // 4 + 4), np.intp)
            self._tables, self._known = list(tables), [0] * len(tables)
        for row, (table, known) in enumerate(zip(tables, self._known, strict=True)):
            if len(table) > known:
                self._index[row, known : len(table)] = table[known:]
                self._known[row] = len(table)
