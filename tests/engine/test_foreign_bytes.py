"""Blocks that another tenant filled: whoever maps them next finds nothing of it, not even behind his own end."""

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fakes import MODEL, POOL, SmallEngine, a_request
from twinfer.engine.assemble import emulated_capabilities

MARK = 0xA5
"""No element that an emulated engine writes has such a byte twice in a row, and the pool is full of it."""
NUM_BLOCKS = 24
BLOCK_BYTES = emulated_capabilities(MODEL, POOL).layout.block_bytes

LENGTHS = st.tuples(st.integers(1, 24), st.integers(1, 10), st.booleans())


@settings(max_examples=60, deadline=None)
@given(jobs=st.lists(LENGTHS, min_size=1, max_size=3))
def test_a_mapped_block_has_nothing_of_others(jobs: list[tuple[int, int, bool]]) -> None:
    """Each block is as the other tenant left it, or has no byte of it: prompts, answers that grow, and exports."""
    engine = SmallEngine(NUM_BLOCKS)
    engine.memory[:] = bytes([MARK]) * len(engine.memory)
    for number, (num_tokens, max_tokens, exported) in enumerate(jobs):
        request = a_request([number] * num_tokens, max_tokens, str(number), tenant="beta")
        (engine.engine.exports if exported else engine.engine).submit(request)
        engine.run()
        engine.engine.exports.release(request.request_id)
    blocks = [bytes(engine.memory[start : start + BLOCK_BYTES]) for start in range(0, len(engine.memory), BLOCK_BYTES)]
    untouched = bytes([MARK]) * BLOCK_BYTES
    mapped = [block for block in blocks if block != untouched]
    assert mapped
    assert [block for block in mapped if bytes([MARK, MARK]) in block] == []
