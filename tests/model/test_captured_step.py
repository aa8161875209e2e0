"""Recorded steps on a CPU, where a tape stands for a CUDA graph."""

import random
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch

from tests.conftest import TinyCheckpoints
from tests.model.driver import SCRATCH, Driver, Place, Progress, make_request
from tests.model.tape import Tapes
from tests.model.test_parity import FAMILIES
from twinfer.core.layout import KVDtype
from twinfer.core.step import Draw, Slice
from twinfer.model import captured_step, load
from twinfer.model.buckets import Bucket, Buckets
from twinfer.model.captured_step import CapturedStep
from twinfer.model.recorder import Eager, recorder_for
from twinfer.model.runner import ModelRunner
from twinfer.model.spec import StoredFormat

pytestmark = pytest.mark.torch

WITH_EXPERTS = ("mixtral", "moe", "gpt-oss")
DENSE = {name: how for name, how in FAMILIES.items() if not any(word in name for word in WITH_EXPERTS)}
LENGTHS = (1, 7, 8, 31, 90)
SMALL = Buckets((1, 2, 4, 8), (4, 16, 32), 256)


@pytest.fixture(autouse=True)
def _as_on_another_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the kernels for CPUs, which no tape sees."""
    monkeypatch.setattr(load, "find_kernels", lambda threads: None)


def a_driver(directory: Path, cache_dir: Path, weights: StoredFormat = "fp32", kv_dtype: KVDtype = "fp32") -> Driver:
    """With steps on tapes, in shapes that fit tiny contexts."""
    driver = Driver(directory, cache_dir, weights, kv_dtype, place=Place(recorder=Tapes()))
    step(driver)._buckets = SMALL
    return driver


def step(driver: Driver) -> CapturedStep:
    """Of a model that has one."""
    found = driver.runner._captured_step
    assert found is not None
    return found


def logits(runner: ModelRunner, slices: Sequence[Slice], recorded: bool) -> torch.Tensor:
    """A step's logits, recorded or the general way."""
    kept = runner._captured_step
    assert kept is not None
    assert kept.takes(slices)
    runner._captured_step = kept if recorded else None
    try:
        with torch.inference_mode():
            return runner._logits(slices).clone()
    finally:
        runner._captured_step = kept


def started(driver: Driver, lengths: Sequence[int] = LENGTHS) -> list[Progress]:
    """Sequences whose prompts are computed."""
    numbers = random.Random(5)
    sequences = [
        Progress(make_request(f"{i}", [numbers.randrange(4096) for _ in range(length)]))
        for i, length in enumerate(lengths)
    ]
    driver.step(sequences)
    return sequences


def advance(sequences: Sequence[Progress], slices: Sequence[Slice], found: torch.Tensor) -> None:
    """Take the greedy tokens."""
    for sequence, part, row in zip(sequences, slices, found, strict=True):
        sequence.computed = part.end
        sequence.draws.append(Draw(int(row.argmax())))


def expect_the_same_up_to(tolerance: float, driver: Driver) -> None:
    """Recorded steps and others differ by no more than that share of the largest logit."""
    sequences = started(driver)
    for _ in range(3):
        slices = [driver.slice_of(sequence, 1) for sequence in sequences]
        before = driver.pool.clone()
        expected = logits(driver.runner, slices, recorded=False)
        driver.pool.copy_(before)
        found = logits(driver.runner, slices, recorded=True)
        assert (found - expected).abs().max() <= tolerance * expected.abs().max()
        advance(sequences, slices, expected)


def owned_by(sequences: Sequence[Progress]) -> list[int]:
    """All their blocks."""
    return [block for sequence in sequences for block in sequence.blocks]


@pytest.mark.parametrize("family", DENSE)
def test_same_logits_and_kv_as_the_general_way(family: str, tiny: TinyCheckpoints, cache_dir: Path) -> None:
    """Padded in both directions, again and again on new inputs; what is no sequence's own may be no number at all."""
    shape, changes = DENSE[family]
    driver = a_driver(tiny(shape, **changes), cache_dir)
    sequences = started(driver)
    for _ in range(8):
        slices = [driver.slice_of(sequence, 1) for sequence in sequences]
        strangers = sorted({*range(len(driver.pool))} - {*owned_by(sequences)})
        driver.pool[strangers] = torch.nan
        before = driver.pool.clone()
        expected = logits(driver.runner, slices, recorded=False)
        stored = driver.pool.clone()
        driver.pool.copy_(before)
        found = logits(driver.runner, slices, recorded=True)
        torch.testing.assert_close(expected, found, rtol=1e-4, atol=1e-4)
        own = owned_by(sequences)
        torch.testing.assert_close(stored[own], driver.pool[own], rtol=1e-4, atol=1e-5)
        advance(sequences, slices, found)
        driver.pool[driver.free] = 0.0
    recorder = step(driver)._recorder
    assert isinstance(recorder, Tapes)
    assert len(step(driver).recorded) == recorder.made <= 2


def test_padding_touches_nothing_but_scratch(tiny: TinyCheckpoints, cache_dir: Path) -> None:
    """Not a byte outside the sequences' new positions and the first position of the scratch block changes."""
    driver = a_driver(tiny("tiny-qwen3"), cache_dir)
    sequences = started(driver, (3, 9, 17))
    slices = [driver.slice_of(sequence, 1) for sequence in sequences]
    driver.pool.copy_(torch.randn(driver.pool.shape, generator=torch.Generator().manual_seed(0)))
    before = driver.pool.clone()
    logits(driver.runner, slices, recorded=True)
    changed = {(block, token) for block, *_, token in (driver.pool != before).any(-1).nonzero().tolist()}
    expected = {(part.block_table[part.start // 4], part.start % 4) for part in slices}
    assert (Bucket(4, 16),) == step(driver).recorded
    assert expected | {(SCRATCH, 0)} == changed


@pytest.mark.parametrize(
    ("weights", "kv_dtype", "tolerance"),
    [("fp32", "fp8", 0.02), ("bf16", "bf16", 0.06), ("fp16", "fp16", 0.01), ("int8", "bf16", 0.06)],
)
def test_precisions(
    weights: StoredFormat, kv_dtype: KVDtype, tolerance: float, tiny: TinyCheckpoints, cache_dir: Path
) -> None:
    """So it is in other types of weights and KV, up to their rounding."""
    expect_the_same_up_to(tolerance, a_driver(tiny("tiny-qwen3"), cache_dir, weights, kv_dtype))


@pytest.mark.parametrize("shape", ["tiny-llama", "tiny-mistral", "tiny-gemma2"])
def test_answers_do_not_change(shape: str, tiny: TinyCheckpoints, cache_dir: Path) -> None:
    """Whole answers, while sequences join, prompts come in chunks and every step has another shape."""
    numbers = random.Random(3)
    prompts = [[numbers.randrange(4096) for _ in range(length)] for length in LENGTHS]
    recorded = a_driver(tiny(shape), cache_dir)
    assert Driver(tiny(shape), cache_dir).staggered(prompts, 24, 16) == recorded.staggered(prompts, 24, 16)
    assert len(step(recorded).recorded) > 3


def test_sequences_that_share_a_step_with_their_next_tokens(tiny: TinyCheckpoints, cache_dir: Path) -> None:
    """Guesses of one request are slices of their own, which see each other's KV."""
    driver = a_driver(tiny("tiny-llama"), cache_dir)
    (sequence,) = started(driver, (11,))
    request, blocks = sequence.request, [*sequence.blocks, driver.free.pop()]
    slices = [Slice(request, (token,), 11 + i, blocks, 1 + i, (), i > 0) for i, token in enumerate((5, 6, 7))]
    before = driver.pool.clone()
    expected = logits(driver.runner, slices, recorded=False)
    driver.pool.copy_(before)
    torch.testing.assert_close(expected, logits(driver.runner, slices, recorded=True), rtol=1e-4, atol=1e-4)


def test_only_steps_that_decode_are_taken(tiny: TinyCheckpoints, cache_dir: Path) -> None:
    """Not those with a prompt or a chunk of one token among them, nor with more sequences than any shape has."""
    driver = a_driver(tiny("tiny-llama"), cache_dir)
    (sequence,) = started(driver, (5,))
    one = driver.slice_of(sequence, 1)
    chunk, prompt = (driver.slice_of(Progress(make_request(str(size), (1, 2))), size) for size in (1, 2))
    assert [True, False, False, False] == [
        step(driver).takes(slices) for slices in ([one], [one, chunk], [prompt], [one] * 9)
    ]


def test_recordings_are_bounded(tiny: TinyCheckpoints, cache_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The shape that was not used for longest makes room, and is recorded again when it is back."""
    monkeypatch.setattr(captured_step, "MAX_RECORDINGS", 2)
    driver = a_driver(tiny("tiny-llama"), cache_dir)
    sequences = started(driver, (3, 3, 3))
    recorder = step(driver)._recorder
    assert isinstance(recorder, Tapes)
    for count, made in ((1, 1), (2, 2), (1, 2), (3, 3), (1, 3), (2, 4)):
        logits(driver.runner, [driver.slice_of(sequence, 1) for sequence in sequences[:count]], recorded=True)
        assert made == recorder.made
    assert (Bucket(1, 4), Bucket(2, 4)) == step(driver).recorded


def test_who_goes_the_general_way(tiny: TinyCheckpoints, cache_dir: Path) -> None:
    """Models with experts, and CPUs."""
    assert Driver(tiny("tiny-mixtral"), cache_dir, place=Place(recorder=Eager())).runner._captured_step is None
    assert Driver(tiny("tiny-llama"), cache_dir).runner._captured_step is None
    assert recorder_for(torch.device("cpu")) is None


@pytest.mark.parametrize(
    "work",
    [
        lambda: torch.zeros(int(torch.ones(1).item())),
        lambda: torch.ones(3)[torch.ones(3) > 0],
        lambda: torch.zeros(2) + torch.tensor([1.0, 2.0]),
    ],
)
def test_a_tape_refuses_what_a_graph_would(work: Callable[[], torch.Tensor]) -> None:
    """No look at a value, no shape that depends on one, no numbers that come from the host."""
    with torch.inference_mode(), pytest.raises(RuntimeError, match="wait for each other"):
        Tapes().record(work)


def test_a_tape_repeats_what_was_done() -> None:
    """On what the inputs hold then, and with the branch that was taken at first."""
    inputs, kept = torch.zeros(3), torch.zeros(3)

    def work() -> torch.Tensor:
        kept[1:].add_(inputs[1:])
        return (inputs + 1).view(3, 1).mul(2)[:, 0]

    repeat = Tapes().record(work)
    inputs.fill_(4.0)
    assert [10.0, 10.0, 10.0] == repeat().tolist()
    assert [0.0, 4.0, 4.0] == kept.tolist()
