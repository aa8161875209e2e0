"""The emulated engine: no wrong block goes unnoticed, and its values survive every KV dtype."""

import msgspec
import numpy as np
import pytest

from tests.fakes import EMULATION, POOL, SmallEngine, a_request, expected_output
from twinfer.core.clock import ManualClock
from twinfer.core.config import EmulationConfig, PoolConfig
from twinfer.core.layout import KVDtype, KVLayout
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
    for _ in range(3):
        engine.engine.step()
    token_bytes = EMULATION.head_dim * 4
    block, offset = divmod(position, POOL.block_tokens)
    where = block * engine.engine.capabilities.layout.block_bytes + offset * token_bytes
    values = np.frombuffer(engine.memory, dtype=np.float32)
    values[where // 4] = 7.0 if values[where // 4] != 7.0 else -7.0
    outcome = engine.engine.step()
    assert outcome is not None
    assert expected_output(PROMPT, 8)[3] != outcome.tokens[0].token_id


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
    """Prefill by tokens per second, decode by the step, both against an absolute deadline."""
    emulation: EmulationConfig = msgspec.structs.replace(EMULATION, prefill_tokens_per_s=1e7, decode_step_ms=0.005)
    clock = SelfMovingClock()
    engine = SmallEngine(64, msgspec.structs.replace(POOL, emulation=emulation), clock)
    engine.engine.submit(a_request([1] * 100, 3))
    times = [clock.now()]
    while engine.engine.step() is not None:
        times.append(clock.now())
    prefill_s, decode_s, _ = np.diff(times)
    assert 1e-5 <= prefill_s < 3e-5
    assert 5e-6 <= decode_s < 2e-5
