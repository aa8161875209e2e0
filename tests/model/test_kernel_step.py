import random
from collections.abc import Sequence
from pathlib import Path

import msgspec
import pytest
import torch

from tests.conftest import TinyCheckpoints
from tests.model.driver import Driver, Progress, make_request
from twinfer.core.step import Draw, Slice
from twinfer.model.kernel_step import KernelStep
from twinfer.model.kernels.library import Isa, find_kernels
from twinfer.model.runner import ModelRunner
from twinfer.model.spec import StoredFormat

BUILT = find_kernels(1)
pytestmark = [
    pytest.mark.torch,
    pytest.mark.skipif(BUILT is None or BUILT.isa < Isa.AVX512, reason="needs kernels with AVX-512"),
]
needs_tiles = pytest.mark.skipif(BUILT is None or BUILT.isa < Isa.AMX, reason="needs kernels with tiles")

FAMILIES: dict[str, tuple[str, dict[str, object]]] = {
    "llama with biases": ("tiny-llama", {"attention_bias": True}),
    "mistral with a window": ("tiny-mistral", {}),
    "qwen2 with windows in some layers": (
        "tiny-qwen2",
        {"use_sliding_window": True, "sliding_window": 10, "max_window_layers": 1},
    ),
    "qwen3": ("tiny-qwen3", {}),
}


TILES: dict[str, tuple[str, dict[str, object]]] = {
    "two heads share a key": ("tiny-qwen3", {}),
    "heads of 64, one key": ("tiny-qwen2", {"head_dim": 64, "num_key_value_heads": 1}),
    "heads of 96, a key each": ("tiny-qwen3", {"head_dim": 96, "num_key_value_heads": 4}),
    "a window": ("tiny-mistral", {"head_dim": 32}),
    "a window longer than a run of keys": ("tiny-mistral", {"head_dim": 32, "sliding_window": 70}),
}


def logits(runner: ModelRunner, slices: Sequence[Slice], use_step: bool) -> torch.Tensor:
    """A step's logits, by the kernels or by the general way."""
    step = runner._kernel_step
    runner._kernel_step = step if use_step else None
    try:
        with torch.inference_mode():
            return runner._logits(slices).float()
    finally:
        runner._kernel_step = step


@pytest.mark.parametrize("family", FAMILIES | TILES)
@pytest.mark.parametrize("weights", ["bf16", "int8", "int4"])
def test_same_as_the_general_way(family: str, weights: StoredFormat, tiny: TinyCheckpoints, cache_dir: Path) -> None:
    """Steps of one token each give the logits, and store the KV, of ``decoder.forward``, up to rounding in bf16."""
    shape, changes = (FAMILIES | TILES)[family]
    driver = Driver(tiny(shape, **changes), cache_dir, weights, "bf16")
    assert isinstance(driver.runner._kernel_step, KernelStep)
    numbers = random.Random(5)
    sequences = [
        Progress(make_request(str(length), [numbers.randrange(4096) for _ in range(length)]))
        for length in (1, 7, 8, 31, 90)
    ]
    driver.step(sequences)
    for _ in range(4):
        slices = [driver.slice_of(sequence, 1) for sequence in sequences]
        before = driver.pool.clone()
        expected = logits(driver.runner, slices, use_step=False)
        stored = driver.pool.clone()
        driver.pool.copy_(before)
        found = logits(driver.runner, slices, use_step=True)
        assert (found - expected).abs().max() <= 0.06 * expected.abs().max()
        assert (driver.pool.float() - stored.float()).abs().max() <= 0.06 * stored.float().abs().max()
        assert torch.equal((stored != before).any(-1), (driver.pool != before).any(-1))
        for sequence, part, row in zip(sequences, slices, found, strict=True):
            sequence.computed = part.end
            sequence.draws.append(Draw(int(row.argmax())))


@needs_tiles
@pytest.mark.parametrize("family", TILES)
@pytest.mark.parametrize("chunk", [33, 70, 150])
def test_prompts_same_as_the_general_way(family: str, chunk: int, tiny: TinyCheckpoints, cache_dir: Path) -> None:
    """So do prompts in chunks, of several sequences at once and with single tokens of others between them."""
    shape, changes = TILES[family]
    driver = Driver(tiny(shape, **changes), cache_dir, "bf16", "bf16")
    numbers = random.Random(7)
    sequences = [
        Progress(make_request(str(length), [numbers.randrange(4096) for _ in range(length)]))
        for length in (150, 3, 2, 201, 1)
    ]
    while unfinished := [sequence for sequence in sequences if len(sequence.draws) < 2]:
        slices = [driver.slice_of(sequence, chunk) for sequence in unfinished]
        before = driver.pool.clone()
        expected = logits(driver.runner, slices, use_step=False)
        stored = driver.pool.clone()
        driver.pool.copy_(before)
        found = logits(driver.runner, slices, use_step=True)
        assert (found - expected).abs().max() <= 0.06 * expected.abs().max() if len(found) else True
        assert (driver.pool.float() - stored.float()).abs().max() <= 0.06 * stored.float().abs().max()
        assert torch.equal((stored != before).any(-1), (driver.pool != before).any(-1))
        rows = iter(found)
        for sequence, part in zip(unfinished, slices, strict=True):
            sequence.computed = part.end
            if part.sample_index is not None:
                sequence.draws.append(Draw(int(next(rows).argmax())))


@needs_tiles
@pytest.mark.parametrize("chunk", [1, 40])
def test_what_is_not_finite_stays_with_its_sequence(chunk: int, tiny: TinyCheckpoints, cache_dir: Path) -> None:
    """Whoever sees a value that is no number gets none either, and its neighbour in the batch is as ever."""
    driver = Driver(tiny("tiny-qwen3"), cache_dir, "bf16", "bf16")
    spoilt, sound = (Progress(make_request(name, list(range(80)))) for name in "ab")
    first = [driver.slice_of(sequence, 40) for sequence in (spoilt, sound)]
    logits(driver.runner, first, use_step=True)
    for sequence in (spoilt, sound):
        sequence.computed = 40
    driver.pool[spoilt.blocks[3]] = torch.nan
    sound.request, spoilt.request = (make_request(name, list(range(40 + chunk))) for name in "ba")
    found = logits(driver.runner, [driver.slice_of(sequence, chunk) for sequence in (spoilt, sound)], use_step=True)
    assert [False, True] == [bool(row.isfinite().all()) for row in found]


@pytest.mark.parametrize("isa", [Isa.AVX512, Isa.AMX])
def test_a_guess_sees_those_before_it(isa: Isa, tiny: TinyCheckpoints, cache_dir: Path) -> None:
    """Tokens of one sequence in slices of their own find each other's keys, whoever of them is attended first."""
    driver = Driver(tiny("tiny-qwen2", head_dim=64, num_key_value_heads=1), cache_dir, "bf16", "bf16")
    step = driver.runner._kernel_step
    assert step is not None
    step.kernels.machine.isa = min(isa, step.kernels.isa)
    step.kernels.machine.threads = 1
    sequence = Progress(make_request("a", [number * 37 % 4096 for number in range(44)]))
    parts = []
    for end in range(41, 45):
        sequence.computed = end - 1
        part = driver.slice_of(sequence, 1)
        parts.append(msgspec.structs.replace(part, sample_index=0))
    before = driver.pool.clone()
    expected = logits(driver.runner, parts, use_step=True)
    driver.pool.copy_(before)
    assert torch.equal(expected, logits(driver.runner, parts[::-1], use_step=True).flip(0))


@needs_tiles
def test_takes_prompts_where_there_are_tiles(tiny: TinyCheckpoints, cache_dir: Path) -> None:
    """With heads that fill tiles any step is taken; with smaller ones, single tokens of not too many sequences."""
    assert [True, True, True, True] == taken(Driver(tiny("tiny-qwen3"), cache_dir, "bf16", "bf16"))
    assert [True, False, False, False] == taken(Driver(tiny("tiny-llama"), cache_dir, "bf16", "bf16"))


def taken(driver: Driver) -> list[bool]:
    """Whether the step takes a token, a prompt, both, and a token each of 65 sequences."""
    step = driver.runner._kernel_step
    assert step is not None
    one, many = (driver.slice_of(Progress(make_request(name, (1, 2))), chunk) for name, chunk in (("a", 1), ("b", 2)))
    return [step.takes(slices) for slices in ([one], [many], [one, many], [one] * 65)]


def test_a_slice_that_draws_nothing_has_no_logits(tiny: TinyCheckpoints, cache_dir: Path) -> None:
    """Only rows that draw are multiplied with the vocabulary, in the slices' order."""
    driver = Driver(tiny("tiny-qwen3"), cache_dir, "bf16", "bf16")
    sequences = [Progress(make_request(name, prompt)) for name, prompt in (("a", (1, 2)), ("b", (3,)), ("c", (4, 5)))]
    slices = [driver.slice_of(sequence, 1) for sequence in sequences]
    found = logits(driver.runner, slices, use_step=True)
    assert (1, 4096) == tuple(found.shape)
    assert torch.equal(logits(driver.runner, slices[1:2], use_step=True).argmax(), found.argmax())


@pytest.mark.parametrize(("weights", "kv_dtype"), [("fp32", "fp32"), ("bf16", "fp32"), ("bf16", "fp8")])
def test_other_types_are_left_to_torch(
    weights: StoredFormat, kv_dtype: str, tiny: TinyCheckpoints, cache_dir: Path
) -> None:
    """There is no decode step where weights or KV are not what the kernels compute with."""
    driver = Driver(tiny("tiny-qwen3"), cache_dir, weights, kv_dtype)  # type: ignore[arg-type]
    assert driver.runner._kernel_step is None
