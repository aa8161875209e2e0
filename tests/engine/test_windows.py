"""Models whose every layer has a window: answers let go of KV that nothing looks back to, and stay right."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from zlib import crc32

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.conftest import TinyCheckpoints
from tests.fakes import KEY, MODEL, POOL, SmallEngine, a_request
from twinfer.core.clock import ManualClock
from twinfer.core.ids import RequestId
from twinfer.core.step import Draw, Slice, StepPlan, StepResult
from twinfer.engine.assemble import assemble
from twinfer.engine.paged import PagedEngine

SIZE = POOL.block_tokens
SIGHT = 11
PROMPTS = st.lists(st.integers(0, 20), min_size=1, max_size=60)


def next_token(seen: Sequence[int]) -> int:
    """What follows when these tokens are in sight."""
    return crc32(bytes(seen)) % 251


def expected_output(prompt: Sequence[int], num_tokens: int) -> list[int]:
    """The whole answer, worked out without any KV."""
    tokens = list(prompt)
    for _ in range(num_tokens):
        tokens.append(next_token(tokens[-SIGHT:]))
    return tokens[len(prompt) :]


@dataclass
class WindowedRunner:
    """Keeps each position's token in its block, and answers by those in sight as they stand in memory."""

    memory: dict[tuple[int, int], int] = field(default_factory=dict)

    def execute(self, plan: StepPlan) -> StepResult:
        """Write all tokens, then read."""
        for part in plan.slices:
            for position, token in enumerate(part.token_ids, part.start):
                self.memory[part.block_table[position // SIZE], position % SIZE] = token
        return StepResult(tuple(map(self._draw, plan.slices)))

    def _draw(self, part: Slice) -> Draw | None:
        seen = [
            self.memory[part.block_table[position // SIZE], position % SIZE]
            for position in range(max(0, part.end - SIGHT), part.end)
        ]
        return None if part.sample_index is None else Draw(next_token(seen))

    def to_host(self, blocks: Sequence[int]) -> None:
        """All memory is the host's."""

    def from_host(self, blocks: Sequence[int]) -> None:
        """All memory is the host's."""


def an_engine(num_blocks: int, runner: WindowedRunner, max_step_tokens: int = 16) -> PagedEngine:
    """A windowed engine whose context is not bounded by its pool."""
    pool = msgspec.structs.replace(POOL, max_step_tokens=max_step_tokens)
    capabilities = msgspec.structs.replace(
        SmallEngine(num_blocks).engine.capabilities,
        num_blocks=num_blocks,
        max_context_tokens=1000,
        sight_tokens=SIGHT,
    )
    return assemble(pool, capabilities, runner, KEY, ManualClock())


def run(engine: PagedEngine) -> dict[str, list[int]]:
    """Step to the end; output by request."""
    output: dict[str, list[int]] = {}
    while (outcome := engine.step()) is not None:
        for token in outcome.tokens:
            output.setdefault(token.request_id, []).append(token.token_id)
        counts = engine.load().blocks
        assert counts.total == counts.free + counts.cached + counts.live
    return output


@settings(max_examples=100, deadline=None)
@given(
    jobs=st.lists(st.tuples(PROMPTS, st.integers(1, 40)), min_size=1, max_size=9),
    max_step_tokens=st.integers(8, 40),
    num_blocks=st.integers(15, 40),
)
def test_letting_go_never_changes_an_answer(
    jobs: list[tuple[list[int], int]], max_step_tokens: int, num_blocks: int
) -> None:
    """Whatever the mix, chunk size, prefix hits and preemptions; at the end nothing is held."""
    engine = an_engine(num_blocks, WindowedRunner(), max_step_tokens)
    for index, (prompt, num_tokens) in enumerate(jobs):
        engine.submit(a_request(prompt, num_tokens, str(index)))
    assert {str(i): expected_output(p, n) for i, (p, n) in enumerate(jobs)} == run(engine)
    assert engine.load().blocks.live == 0


def test_blocks_held_do_not_grow() -> None:
    """A long answer holds what is in sight and the block it writes to, and may be longer than the pool."""
    engine = an_engine(8, WindowedRunner())
    engine.submit(a_request([1, 2, 3], 200))
    held, tokens = 0, []
    while (outcome := engine.step()) is not None:
        tokens += [token.token_id for token in outcome.tokens]
        held = max(held, engine.load().blocks.live)
    assert expected_output([1, 2, 3], 200) == tokens
    assert -(-(SIGHT - 1) // SIZE) + 1 == held


def test_long_prompts_hold_no_more() -> None:
    """A prompt takes what it needs at once, and after each chunk holds what the next one sees."""
    engine = an_engine(32, WindowedRunner(), max_step_tokens=16)
    engine.submit(a_request(list(range(80)), 1))
    held = []
    while engine.step() is not None:
        held.append(engine.load().blocks.live)
    at_once = -(-(SIGHT + 16) // SIZE) + 1
    assert [at_once - 1, 3, 3, 3, 0] == held


@pytest.mark.parametrize(("length", "num_answers"), [(3, 8), (90, 4)])
def test_answers_give_way_to_each_other(length: int, num_answers: int) -> None:
    """Where they grow into more windows than there is room for; prompts may be longer than the pool."""
    engine = an_engine(14, WindowedRunner(), max_step_tokens=12)
    prompts = {str(i): list(range(i, i + length)) for i in range(num_answers)}
    for name, prompt in prompts.items():
        engine.submit(a_request(prompt, 60, name))
    assert {name: expected_output(prompt, 60) for name, prompt in prompts.items()} == run(engine)
    assert engine.load().blocks.live == 0
    assert engine.load().counters.preemptions > 0 or length > 3


def test_what_is_let_go_is_cache() -> None:
    """The same prompt again hits it, as long as nobody needed the room."""
    engine = an_engine(40, WindowedRunner())
    prompt = list(range(60))
    for name in ("first", "second"):
        engine.submit(a_request(prompt, 5, name))
        assert {name: expected_output(prompt, 5)} == run(engine)
    assert engine.load().counters.cached_tokens == 56


def test_handoff_is_whole() -> None:
    """An export keeps every block until it is released; the sink lets go once it has committed them all."""
    prompt = list(range(50))
    source_runner, sink_runner = WindowedRunner(), WindowedRunner()
    source, sink = an_engine(40, source_runner), an_engine(40, sink_runner)
    source.exports.submit(a_request(prompt, 9))
    exported, tokens = [], []
    while (outcome := source.step()) is not None:
        exported += [block for part in outcome.exported for block in part.blocks]
        tokens += outcome.tokens
    assert (13, 13) == (len(exported), source.load().blocks.live)
    assert sink.ingests.promise(a_request(prompt, 9)) == range(50)
    for taken, target in zip(exported, sink.ingests.bind(RequestId("r")), strict=True):
        for offset in range(SIZE):
            sink_runner.memory[target, offset] = source_runner.memory.get((taken, offset), 0)
    sink.ingests.commit(RequestId("r"), tokens[0])
    assert sink.load().blocks.live == 13
    sink.step()
    assert sink.load().blocks.live == 13 - (51 - SIGHT + 1) // SIZE
    assert expected_output(prompt, 9)[2:] == run(sink)["r"]
    assert (sink.load().blocks.live, source.load().blocks.live) == (0, 13)


@pytest.mark.torch
def test_native_engine_says_how_far_it_looks(tiny: TinyCheckpoints, cache_dir: Path) -> None:
    """It is the widest window where every layer has one, and no bound where one has none."""
    from twinfer.engine.native import native_capabilities, native_model

    pool = msgspec.structs.replace(POOL, engine="native")

    def sight(shape: str, **changes: object) -> int:
        model = msgspec.structs.replace(MODEL, source=str(tiny(shape, **changes)))
        return native_capabilities(native_model(model, pool, cache_dir), model, pool).sight_tokens

    assert [sight("tiny-mistral"), sight("tiny-mixtral"), sight("tiny-gpt-oss")] == [24, 0, 0]
