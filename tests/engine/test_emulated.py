"""The emulated engine: no wrong block goes unnoticed, and its values survive every KV dtype."""

from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fakes import EMULATION, MODEL, POOL, VOCAB, SmallEngine, a_request, expected_output
from twinfer.core.clock import ManualClock
from twinfer.core.config import EmulationConfig, PoolConfig
from twinfer.core.layout import KVDtype, KVLayout
from twinfer.core.step import Slice, StepPlan
from twinfer.engine.assemble import emulated_capabilities
from twinfer.engine.emulated import EmulatedRunner
from twinfer.engine.step_times import device_times
from twinfer.engine.token_states import RunningStates, token_states
from twinfer.kv.elements import ElementView

PROMPT = list(range(30))


@pytest.mark.parametrize("dtype", ["fp32", "bf16", "fp16", "fp8"])
def test_answers_are_the_same_in_every_dtype(dtype: KVDtype) -> None:
    """Elements are small integers, exact in all of them."""
    engine = SmallEngine(64, msgspec.structs.replace(POOL, kv_dtype=dtype))
    engine.engine.submit(a_request(PROMPT, 6))
    assert {"r": expected_output(PROMPT, 6)} == engine.run()


@pytest.mark.parametrize("dtype", ["fp32", "bf16", "fp16", "fp8"])
def test_elements_are_stored_in_the_canonical_layout(dtype: KVDtype) -> None:
    """What is written for a position is read back, wherever its block lies, and lies where the layout says."""
    layout = KVLayout(num_layers=2, num_kv_heads=3, head_dim=4, block_tokens=4, dtype=dtype)
    view = ElementView(memoryview(bytearray(6 * layout.block_bytes)), layout)
    rows = np.arange(10 * 48, dtype=np.int64).reshape(10, 48) % 16 - 8
    view.write_tokens([5, 0, 3], 0, rows[:7].astype(np.int8))
    view.write_tokens([5, 0, 3], 7, rows[7:].astype(np.int8))
    assert np.array_equal(rows, view.read_tokens([5, 0, 3], 10))
    layer, kind, head, element = 1, 1, 2, 3
    index = ((layer * 2 + kind) * 3 + head) * 4 + element
    assert rows[6, index] == view.read_tokens([0], 3)[2, index]


@pytest.mark.parametrize("position", [0, 13, 31])
def test_one_wrong_element_gives_a_wrong_token(position: int) -> None:
    """Every element of every position attended to takes part in the next token."""
    engine = SmallEngine(64)
    engine.engine.submit(a_request(PROMPT, 8))
    for _ in range(2):
        engine.engine.step()
    token_bytes = EMULATION.head_dim * 4
    block, offset = divmod(position, POOL.block_tokens)
    where = block * engine.engine.capabilities.layout.block_bytes + offset * token_bytes
    values = np.frombuffer(engine.memory, dtype=np.float32)
    values[where // 4] = 7.0 if values[where // 4] != 7.0 else -7.0
    outcome = engine.engine.step()
    assert outcome is not None
    assert 5 == outcome.tokens[0].index
    assert expected_output(PROMPT, 8)[5] != outcome.tokens[0].token_id


def scripted(**changes: object) -> SmallEngine:
    """An engine that plays an answer."""
    pool: PoolConfig = msgspec.structs.replace(POOL, emulation=msgspec.structs.replace(EMULATION, **changes))
    return SmallEngine(64, pool)


def test_script_is_played_whatever_the_prompt() -> None:
    """The last id repeats when the request goes on."""
    engine = scripted(script_ids=(5, 6, 7))
    engine.engine.submit(a_request(PROMPT, 5))
    assert engine.run() == {"r": [5, 6, 7, 7, 7]}


class SelfMovingClock(ManualClock):
    """Moves on by a microsecond whenever it is asked, so that a wait for a deadline ends without real time."""

    def now(self) -> float:
        self.advance(1e-6)
        return super().now()


def test_a_step_lasts_as_long_as_the_profile_says() -> None:
    """Prefill by tokens per second, decode by the step, both until an absolute deadline, without gaps between them."""
    emulation: EmulationConfig = msgspec.structs.replace(EMULATION, prefill_tokens_per_s=1e7, decode_step_ms=0.005)
    clock = SelfMovingClock()
    engine = SmallEngine(64, msgspec.structs.replace(POOL, emulation=emulation), clock)
    engine.engine.submit(a_request([1] * 100, 3))
    times = [clock.now()]
    while engine.engine.step() is not None:
        times.append(clock.now())
    prefilled, decoded = np.array(times[1:]) - times[0]
    assert 1e-5 <= prefilled < 3e-5
    assert 2e-5 <= decoded < 6e-5


def test_a_step_lasts_as_long_as_its_device_would_take(tmp_path: Path) -> None:
    """The times of a device stand in for those of the configuration."""
    clock = SelfMovingClock()
    times = device_times(EmulationConfig(device="cs3", time_scale=0.01), tmp_path)
    layout = emulated_capabilities(MODEL, POOL).layout
    runner = EmulatedRunner(memoryview(bytearray(4 * layout.block_bytes)), layout, VOCAB, EMULATION, clock, times)
    plan = StepPlan((Slice(a_request([1, 2, 3]), [1, 2, 3], 0, [0], 0, []),))
    started, expected = clock.now(), times.seconds(plan)
    runner.execute(plan)
    assert expected <= clock.now() - started < expected + 2e-5


@given(st.lists(st.integers(1, 40), min_size=1, max_size=6), st.booleans())
def test_states_that_go_on_are_those_from_the_beginning(lengths: list[int], restarted: bool) -> None:
    """Chunk by chunk as all at once; a sequence begun anew, with a list of its own, is not taken for the old one."""
    total = sum(lengths)
    request, states, emitted, start = a_request([n % 7 for n in range(total)]), RunningStates(), list[int](), 0
    expected = token_states(request.prompt, request.tenant)
    for length in lengths:
        part = Slice(request, request.prompt[start : start + length], start, [], None, emitted)
        assert np.array_equal(expected[start : start + length], states.of(part))
        start += length
        if restarted:
            emitted = list[int]()


def test_another_sequence_of_the_same_name_starts_anew() -> None:
    """Another prompt under the same request id gives its own states, even from the same position on."""
    states, first, second = RunningStates(), a_request([1] * 8), a_request([2] * 8)
    states.of(Slice(first, first.prompt[:4], 0, [], None, []))
    found = states.of(Slice(second, second.prompt[4:], 4, [], None, []))
    assert np.array_equal(token_states(second.prompt, second.tenant)[4:], found)


def test_another_seed_stands_for_other_weights() -> None:
    """Its tokens are others, and so is the fingerprint by which workers know whose KV they can read."""
    seeded = msgspec.structs.replace(EMULATION, seed=1)
    prompt = [1, 2, 3, 4, 5]
    pools = [msgspec.structs.replace(POOL, emulation=emulation) for emulation in (EMULATION, seeded)]
    answers = []
    for pool in pools:
        small = SmallEngine(pool=pool)
        small.engine.submit(a_request(prompt, 6))
        answers += small.run().values()
    assert [expected_output(prompt, 6), expected_output(prompt, 6, seeded)] == answers
    assert answers[0] != answers[1]
    difference = emulated_capabilities(MODEL, pools[0]).fingerprint.difference(
        emulated_capabilities(MODEL, pools[1]).fingerprint
    )
    assert str(difference).startswith("weights differs")
