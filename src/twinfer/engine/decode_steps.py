"""Decode steps of an emulated engine: in numpy on any KV content, or in C on the arrays of virtual KV."""

import ctypes
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from twinfer.core.c_library import load_c
from twinfer.engine.token_states import U64

Words: TypeAlias = NDArray[np.uint32]


@dataclass(frozen=True, slots=True)
class Decoding:
    """Sequences that decode side by side, and for how many steps.

    Attributes:
        tables: pool blocks of each, for all of the steps.
        starts: position of each one's last token, which is not in its blocks yet.
        before: state of the position before that.
        salts: what each one's tenant adds to hashes.
        token_ids: each one's last token.
        draw_below: tokens are drawn below it.
        given: tokens that are not to be drawn but are these, ``[step, sequence]``.
    """

    tables: Sequence[Sequence[int]]
    starts: Sequence[int]
    before: Sequence[int]
    salts: Sequence[int]
    token_ids: Sequence[int]
    steps: int
    draw_below: int
    given: Sequence[Sequence[int]] | None = None


@dataclass(frozen=True, slots=True)
class Decoded:
    """States of the positions that were computed, and the tokens that follow them, ``[step, sequence]`` both."""

    states: U64
    tokens: U64


FastDecode: TypeAlias = Callable[[Words, Words, NDArray[np.intp], Decoding], Decoded]
"""Virtual KV's words and weights, one row for each block, and the tables of the sequences as an array."""


def fast_decode() -> FastDecode | None:
    """The one in C, if it was compiled."""
    library = load_c(Path(__file__).parent, "_decode")
    if library is None:
        return None
    function = library.twinfer_decode
    address, size = ctypes.c_void_p, ctypes.c_size_t
    function.argtypes = [address, address, size, address, size, address, address, size, size, ctypes.c_uint64]
    function.argtypes += [address, address]
    function.restype = None

    def decode(words: Words, weights: Words, tables: NDArray[np.intp], work: Decoding) -> Decoded:
        count = len(work.starts)
        sequences = np.array((work.starts, work.before, work.salts, work.token_ids), np.uint64)
        given = None if work.given is None else np.array(work.given, np.uint64)
        states, tokens = found = np.empty((2, work.steps, count), np.uint64)
        function(
            words.ctypes.data,
            weights.ctypes.data,
            words.shape[1] // 2,
            tables.ctypes.data,
            tables.shape[1],
            sequences.ctypes.data,
            None if given is None else given.ctypes.data,
            count,
            work.steps,
            work.draw_below,
            states.ctypes.data,
            tokens.ctypes.data,
        )
        return Decoded(*found)

    return decode
