"""Timed steps: which ones, and that their times are those of the runner."""

import msgspec

from tests.fakes import EMULATION, MODEL, POOL
from twinfer.core.clock import MonotonicClock
from twinfer.engine.assemble import emulated_capabilities
from twinfer.engine.emulated import EmulatedRunner
from twinfer.engine.step_probe import probe, probed_steps

NUM_BLOCKS = 40


def test_steps_that_fit_are_timed() -> None:
    """In a pool of 40 blocks of 4 positions: chunks and batches of up to 160, each at least as long as it takes."""
    layout = emulated_capabilities(MODEL, POOL).layout
    assert 4 == layout.block_tokens
    emulation = msgspec.structs.replace(EMULATION, prefill_tokens_per_s=1e5, decode_step_ms=0.1)
    memory = memoryview(bytearray(NUM_BLOCKS * layout.block_bytes))
    clock = MonotonicClock()
    runner = EmulatedRunner(memory, layout, 50, emulation, clock)
    samples = probe(runner, layout, NUM_BLOCKS, clock)
    fitting = [step for step in probed_steps() if sum(-(-work.end // 4) for work in step) <= NUM_BLOCKS]
    assert fitting == [one.work for one in samples]
    assert {(1, 16), (1, 128), (2, 1)} <= {(len(step), step[0].new_tokens) for step in fitting}
    for one in samples:
        tokens = one.work[0].new_tokens
        assert one.seconds >= (1e-4 if tokens == 1 else tokens / 1e5)
