import random
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from tests.conftest import TinyCheckpoints
from tests.model.driver import Driver, Progress, make_request
from twinfer.core.step import Draw, Slice
from twinfer.model.decode_step import DecodeStep
from twinfer.model.kernels.library import Isa, find_kernels
from twinfer.model.runner import ModelRunner
from twinfer.model.spec import StoredFormat

BUILT = find_kernels(1)
pytestmark = [
    pytest.mark.torch,
    pytest.mark.skipif(BUILT is None or BUILT.isa < Isa.AVX512, reason="needs kernels with AVX-512"),
]

FAMILIES: dict[str, tuple[str, dict[str, object]]] = {
    "llama with biases": ("tiny-llama", {"attention_bias": True}),
    "mistral with a window": ("tiny-mistral", {}),
    "qwen2 with windows in some layers": (
        "tiny-qwen2",
        {"use_sliding_window": True, "sliding_window": 10, "max_window_layers": 1},
    ),
    "qwen3": ("tiny-qwen3", {}),
}


def logits(runner: ModelRunner, slices: Sequence[Slice], use_step: bool) -> torch.Tensor:
    """A step's logits, by the kernels or by the general way."""
    step = runner._decode_step
    runner._decode_step = step if use_step else None
    try:
        with torch.inference_mode():
            return runner._logits(slices).float()
    finally:
        runner._decode_step = step


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("weights", ["bf16", "int8", "int4"])
def test_same_as_the_general_way(family: str, weights: StoredFormat, tiny: TinyCheckpoints, cache_dir: Path) -> None:
    """Steps of one token each give the logits, and store the KV, of ``decoder.forward``, up to rounding in bf16."""
    shape, changes = FAMILIES[family]
    driver = Driver(tiny(shape, **changes), cache_dir, weights, "bf16")
    assert isinstance(driver.runner._decode_step, DecodeStep)
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


def test_takes_steps_of_single_tokens_only(tiny: TinyCheckpoints, cache_dir: Path) -> None:
    """A prompt in the step, or more sequences than kernels are good for, leave it to torch."""
    driver = Driver(tiny("tiny-qwen3"), cache_dir, "bf16", "bf16")
    step = driver.runner._decode_step
    assert step is not None
    one, many = (driver.slice_of(Progress(make_request(name, (1, 2))), chunk) for name, chunk in (("a", 1), ("b", 2)))
    assert [True, False, False, False] == [step.takes(x) for x in ([one], [many], [one, many], [one] * 65)]


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
    assert driver.runner._decode_step is None
