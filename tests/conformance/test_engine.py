"""What every engine must do, run against the emulated one and, where torch is, the native one on a tiny model.

An engine's answer is compared with the same engine's answer to the same prompt served alone from a fresh start.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
import pytest

from tests.fakes import KEY, MODEL, POOL, SmallEngine, a_request
from twinfer.core.errors import InvalidRequest
from twinfer.core.ids import RequestId
from twinfer.core.tokens import FinishReason, Token
from twinfer.engine.assemble import assemble
from twinfer.engine.base import Engine

BLOCK = 4


@dataclass
class Subject:
    """An engine under test, with the memory its KV leaves from and arrives in."""

    engine: Engine
    memory: memoryview

    def run(self) -> list[Token]:
        """Step until nothing is left to do."""
        tokens: list[Token] = []
        while (outcome := self.engine.step()) is not None:
            assert not outcome.failed
            tokens += outcome.tokens
        return tokens

    def answer(self, prompt: Sequence[int], max_tokens: int, emitted: tuple[int, ...] = ()) -> list[int]:
        """The answer to one prompt."""
        self.engine.submit(a_request(prompt, max_tokens, "alone"), emitted)
        return [token.token_id for token in self.run()]


Make = Callable[[], Subject]
PROMPTS = [list(range(1, 1 + length)) for length in (1, BLOCK, BLOCK + 1, 3 * BLOCK, 41)]


def emulated() -> Subject:
    """The emulated engine."""
    small = SmallEngine(64)
    return Subject(small.engine, memoryview(small.memory))


@pytest.fixture(scope="module", params=["emulated", pytest.param("native", marks=pytest.mark.torch)])
def make(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Make]:
    """Makes engines of one kind, all with the same model."""
    if request.param == "emulated":
        yield emulated
        return
    yield native_maker(tmp_path_factory.mktemp("tiny"))


def native_maker(directory: Path) -> Make:
    """Native engines of one tiny random Llama in fp32."""
    from tools.make_checkpoint import SHAPES, write_checkpoint

    from twinfer.core.clock import MonotonicClock
    from twinfer.engine.native import native_capabilities, native_model, native_runner

    write_checkpoint(directory / "model", SHAPES["tiny-llama"], seed=7)
    model = msgspec.structs.replace(MODEL, source=str(directory / "model"))
    pool = msgspec.structs.replace(POOL, engine="native", weights="fp32")

    def make() -> Subject:
        served = native_model(model, pool, directory)
        capabilities = msgspec.structs.replace(native_capabilities(served, model, pool), num_blocks=64)
        memory = memoryview(bytearray(64 * capabilities.layout.block_bytes))
        runner = native_runner(served, capabilities, "cpu", memory, directory)
        return Subject(assemble(pool, capabilities, runner, KEY, MonotonicClock()), memory)

    return make


def test_answers_do_not_depend_on_company(make: Make) -> None:
    """Together, in any mix of lengths, each prompt gets the answer it gets alone."""
    together = make()
    for index, prompt in enumerate(PROMPTS):
        together.engine.submit(a_request(prompt, 9, str(index)))
    answers: dict[str, list[int]] = {}
    for token in together.run():
        answers.setdefault(token.request_id, []).append(token.token_id)
    assert {str(index): make().answer(prompt, 9) for index, prompt in enumerate(PROMPTS)} == answers


def test_prefix_hit_changes_nothing(make: Make) -> None:
    """The second time most of the prompt is found, and the answer is the same."""
    subject = make()
    first = subject.answer(PROMPTS[-1], 6)
    before = subject.engine.load().counters.cached_tokens
    assert first == subject.answer(PROMPTS[-1], 6)
    assert subject.engine.load().counters.cached_tokens - before == 40


def test_earlier_output_is_continued(make: Make) -> None:
    """Recovery: the tokens another worker emitted, and then the ones it would have."""
    whole = make().answer(PROMPTS[-1], 8)
    assert whole[3:] == make().answer(PROMPTS[-1], 8, tuple(whole[:3]))


@pytest.mark.parametrize("prompt", PROMPTS, ids=len)
@pytest.mark.parametrize("prefix", [0, 12])
def test_handoff_continues_as_if_nothing_had_happened(make: Make, prompt: list[int], prefix: int) -> None:
    """The prompt on one engine, the rest on another, with part of the prompt there already or not."""
    source, sink = make(), make()
    request = a_request(prompt, 7)
    if prefix and len(prompt) > prefix:
        sink.answer(prompt[:prefix], 1)
    to_come = sink.engine.ingests.promise(request)
    assert range(prefix if len(prompt) > prefix else 0, len(prompt)) == to_come
    source.engine.exports.submit(request)
    blocks: list[int] = []
    tokens: list[Token] = []
    while (outcome := source.engine.step()) is not None:
        tokens += outcome.tokens
        for part in outcome.exported:
            assert len(blocks) == part.first_block
            blocks += part.blocks
    size = source.engine.capabilities.layout.block_bytes
    targets = sink.engine.ingests.bind(RequestId("r"))
    for taken, target in zip(blocks[to_come.start // BLOCK :], targets, strict=True):
        sink.memory[target * size : (target + 1) * size] = source.memory[taken * size : (taken + 1) * size]
    sink.engine.ingests.commit(RequestId("r"), tokens[0])
    source.engine.exports.release(RequestId("r"))
    rest = [token.token_id for token in sink.run()]
    assert make().answer(prompt, 7) == [tokens[0].token_id, *rest]
    assert (source.engine.load().blocks.live, sink.engine.load().blocks.live) == (0, 0)


def test_tail_of_a_partial_block_is_zero(make: Make) -> None:
    """R10: what leaves an engine holds nothing of whoever had the block before."""
    subject = make()
    subject.memory[:] = b"\x3c" * len(subject.memory)
    subject.engine.exports.submit(a_request([1, 2, 3, 4, 5, 6], 1))
    exported = [part for outcome in iter(subject.engine.step, None) for part in outcome.exported]
    layout = subject.engine.capabilities.layout
    last = exported[-1].blocks[-1]
    block = np.frombuffer(subject.memory, np.float32).reshape(-1, *layout.block_shape)[last]
    assert not block[:, :, :, 2:].any()
    assert block[:, :, :, :2].any()


def test_every_request_ends_once_with_its_reason(make: Make) -> None:
    """The last token says why; the engine reports the end in the same outcome."""
    subject = make()
    subject.engine.submit(a_request([1, 2, 3], 3))
    outcomes = list(iter(subject.engine.step, None))
    finishes = [token.finish for outcome in outcomes for token in outcome.tokens]
    assert finishes == [None, None, FinishReason.LENGTH]
    assert [request_id for outcome in outcomes for request_id, _ in outcome.finished] == ["r"]
    assert [request_id for request_id, _ in outcomes[-1].finished] == ["r"]


def test_cancelled_requests_are_silent_and_hold_nothing(make: Make) -> None:
    """Before, during and after their steps; unknown ones are fine."""
    subject = make()
    subject.engine.submit(a_request([1] * 9, 50, "a"))
    subject.engine.exports.submit(a_request([2] * 9, 50, "b"))
    subject.engine.step()
    for request_id in ("a", "b", "a", "never seen"):
        subject.engine.cancel(RequestId(request_id))
    assert subject.engine.step() is None
    assert subject.engine.load().blocks.live == 0


def test_withdrawn_ingest_leaves_nothing_findable(make: Make) -> None:
    """R1: bytes that were never committed are no prefix to anybody."""
    subject = make()
    request = a_request(PROMPTS[-1], 4)
    assert subject.engine.ingests.promise(request) == range(len(PROMPTS[-1]))
    subject.engine.ingests.bind(RequestId("r"))
    subject.engine.ingests.withdraw(RequestId("r"), landing=False)
    assert make().answer(PROMPTS[-1], 4) == subject.answer(PROMPTS[-1], 4)
    assert subject.engine.load().counters.cached_tokens == 0


def test_what_does_not_fit_is_refused_in_words(make: Make) -> None:
    """Token ids outside the vocabulary never reach the model."""
    subject = make()
    with pytest.raises(InvalidRequest, match="token ids outside"):
        subject.engine.submit(a_request([subject.engine.capabilities.vocab_size]))
