"""Steps in C are those in numpy: the same states and tokens, and the same bytes left in the pool."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from twinfer.core.layout import KVLayout
from twinfer.engine.decode_steps import Decoding, fast_decode
from twinfer.engine.kv_content import Elements, Fingerprints, KVContent

WORDS = st.integers(0, 2**64 - 1)
SEQUENCES = st.lists(
    st.tuples(st.integers(0, 70), WORDS, st.integers(0, 2**32 - 1), st.integers(0, 2**31)), min_size=1, max_size=5
)


def work(sequences: list[tuple[int, int, int, int]], size: int, steps: int, given: list[list[int]] | None) -> Decoding:
    """Sequences whose blocks lie one after the other, those of the last one first."""
    starts, before, salts, token_ids = (list(column) for column in zip(*sequences, strict=True))
    counts = [-(-(start + steps) // size) for start in starts]
    tables = [list(range(sum(counts[row + 1 :]), sum(counts[row:]))) for row in range(len(counts))]
    return Decoding(tables, starts, before, salts, token_ids, steps, 97, given)


def taken(content: KVContent, wanted: Decoding) -> tuple[list[list[int]], list[list[int]]]:
    """States and tokens."""
    found = content.decode(wanted)
    return found.states.tolist(), found.tokens.tolist()


@given(SEQUENCES, st.sampled_from([1, 3, 16]), st.integers(1, 5), st.booleans(), st.integers(0, 2**32))
def test_both_ways_agree(
    sequences: list[tuple[int, int, int, int]], size: int, steps: int, is_script: bool, seed: int
) -> None:
    """Whatever the pool holds, wherever the sequences begin, drawn or given."""
    if (fast := fast_decode()) is None:
        pytest.skip("the part in C was not compiled")
    script = [[7 + step + row for row in range(len(sequences))] for step in range(steps)] if is_script else None
    wanted = work(sequences, size, steps, script)
    layout = KVLayout(1, 1, 1, size, "fp32", 1000)
    pools = [np.random.default_rng(seed).bytes(sum(map(len, wanted.tables)) * layout.block_bytes)] * 2
    memories = [memoryview(bytearray(pool)) for pool in pools]
    slow, quick = Fingerprints(memories[0], layout), Fingerprints(memories[1], layout, fast)
    assert taken(slow, wanted) == taken(quick, wanted)
    assert memories[0] == memories[1]


@given(SEQUENCES, st.integers(1, 4))
def test_many_steps_are_single_steps(sequences: list[tuple[int, int, int, int]], steps: int) -> None:
    """Each begins with the token that the one before drew, and reads back what that one stored."""
    for make in (Fingerprints, Elements):
        wanted = work(sequences, 4, steps, None)
        layout = KVLayout(1, 1, 1, 4, "fp32", 1000 if make is Fingerprints else 0)
        memory = memoryview(bytearray(sum(map(len, wanted.tables)) * layout.block_bytes))
        states, tokens = taken(make(memory, layout), wanted)
        content, before, last = make(memory, layout), wanted.before, wanted.token_ids
        for step in range(steps):
            starts = [start + step for start in wanted.starts]
            ((before,), (last,)) = taken(content, Decoding(wanted.tables, starts, before, wanted.salts, last, 1, 97))
            assert (states[step], tokens[step]) == (before, last)
