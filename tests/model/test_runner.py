import random
from pathlib import Path

import pytest
import torch

from tests.conftest import TinyCheckpoints
from tests.model.driver import Driver, Progress, make_request
from twinfer.core.layout import KVDtype
from twinfer.core.request import Sampling
from twinfer.core.step import StepPlan, StepResult
from twinfer.model.spec import Precision

pytestmark = pytest.mark.torch


@pytest.fixture
def driver(tiny: TinyCheckpoints, cache_dir: Path) -> Driver:
    """A fresh pool."""
    return Driver(tiny("tiny-llama"), cache_dir)


def prompt_of(length: int, seed: int = 0) -> list[int]:
    """Token ids that are nothing special."""
    numbers = random.Random(seed)
    return [numbers.randrange(4096) for _ in range(length)]


def test_empty_plan(driver: Driver) -> None:
    """A plan without slices computes nothing, and still clears blocks."""
    driver.pool[3] = 1.0
    assert StepResult(()) == driver.runner.execute(StepPlan((), fresh_blocks=(3,)))
    assert driver.pool.abs().max().item() == 0.0


def test_warm_up_leaves_no_trace(driver: Driver) -> None:
    """After warming up the pool is as empty as before."""
    driver.runner.warm_up()
    assert driver.pool.abs().max().item() == 0.0


def test_nothing_is_drawn_before_the_last_chunk(driver: Driver) -> None:
    """A slice without a sample index has no draw, and no failure."""
    sequence = Progress(make_request("a", prompt_of(10)))
    first, last = driver.step([sequence], chunk=6), driver.step([sequence], chunk=6)
    assert StepResult((None,)) == first
    assert (len([draw for draw in last.draws if draw]), last.failed) == (1, ())


def test_only_own_blocks_are_written(driver: Driver) -> None:
    """A step writes its sequences' positions, and not a byte more: the tail of a block stays zero."""
    driver.greedy([prompt_of(9)], 1)
    written = driver.pool.abs().amax(dim=(1, 2, 3, 5)) > 0
    assert written.sum().item() == 9
    assert sorted(count for count in written.sum(1).tolist() if count) == [1, 4, 4]


def test_same_seed_same_tokens_whatever_the_batch(driver: Driver) -> None:
    """A sampled sequence is a function of its request, not of its company or of the chunks."""
    requests = [make_request(str(i), prompt_of(5 + 9 * i, i), Sampling(seed=i, top_p=0.95)) for i in range(3)]
    alone = [driver.generate([request], 8)[0] for request in requests]
    assert alone == driver.generate(requests, 8, chunk=4)


def test_emitted_tokens_continue(driver: Driver) -> None:
    """Recovery: a prompt with output tokens behind it gives the rest of the same sequence."""
    request = make_request("a", prompt_of(12), Sampling(seed=5, repetition_penalty=1.2, presence_penalty=0.5))
    (draws,) = driver.generate([request], 10)
    again = Progress(request, draws=draws[:4])
    while len(again.draws) < 10:
        driver.step([again], chunk=7)
    assert draws == again.draws


def test_another_sequences_nan_stays_its_own(driver: Driver) -> None:
    """A sequence whose KV is not finite fails alone, in prefill and in decode, whatever shares its step."""
    prompts = [prompt_of(3, 1), prompt_of(30, 2)]
    expected = driver.greedy(prompts, 4)
    healthy = [Progress(make_request(str(i), prompt)) for i, prompt in enumerate(prompts)]
    sick = [Progress(make_request(f"sick {i}", prompt_of(20, 3))) for i in range(2)]
    driver.step([*healthy, sick[0]])
    driver.step([sick[1]], chunk=8)
    for sequence in sick:
        driver.pool[sequence.blocks[1]] = torch.nan
    result = driver.step([*healthy, *sick], chunk=12)
    reason = "the model produced non-finite logits for this request; serve it in fp32 or bf16, or check the weights"
    assert {("sick 0", reason), ("sick 1", reason)} == set(result.failed)
    for _ in range(2):
        assert driver.step(healthy).failed == ()
    assert expected == [sequence.emitted for sequence in healthy]


def test_blocks_of_another_are_not_seen(driver: Driver) -> None:
    """Garbage in blocks that changed hands is cleared before it can matter."""
    prompts = [prompt_of(13, 1), prompt_of(6, 2)]
    expected = driver.greedy(prompts, 6)
    driver.pool.fill_(torch.nan)
    assert expected == driver.greedy(prompts, 6)


@pytest.mark.parametrize(
    ("weights", "kv_dtype", "tolerance"),
    [
        ("fp32", "bf16", 0.1),
        ("fp32", "fp16", 0.02),
        ("bf16", "bf16", 0.2),
        ("bf16", "fp32", 0.2),
        ("fp16", "fp16", 0.03),
    ],
)
def test_precisions(
    tiny: TinyCheckpoints, cache_dir: Path, weights: Precision, kv_dtype: KVDtype, tolerance: float
) -> None:
    """In other formats log probabilities stay within a tolerance of fp32's, and so does the margin of the choice."""
    exact = Driver(tiny("tiny-qwen3"), cache_dir)
    rounded = Driver(tiny("tiny-qwen3"), cache_dir, weights, kv_dtype)
    requests = [make_request(str(i), prompt_of(4 + 7 * i, i), top_logprobs=4096) for i in range(10)]
    for ours, theirs in zip(exact.generate(requests, 1), rounded.generate(requests, 1, chunk=9), strict=True):
        reference = {entry.token_id: entry.logprob for entry in ours[0].top}
        difference = [abs(reference[entry.token_id] - entry.logprob) for entry in theirs[0].top[:500]]
        assert max(difference) < tolerance
        assert ours[0].top[0].logprob - reference[theirs[0].token_id] < tolerance


@pytest.mark.parametrize("weights", ["bf16", "fp16"])
@pytest.mark.parametrize(
    "shape", ["tiny-mixtral", "tiny-qwen2-moe", "tiny-gpt-oss", "tiny-gemma2", "tiny-gemma3", "tiny-phi3"]
)
def test_families_in_other_precisions(tiny: TinyCheckpoints, cache_dir: Path, shape: str, weights: Precision) -> None:
    """Every family computes in them; where rounding makes a router choose another expert, a request differs more."""
    drivers = Driver(tiny(shape), cache_dir), Driver(tiny(shape), cache_dir, weights, weights)
    requests = [make_request(str(i), prompt_of(4 + 7 * i, i), top_logprobs=4096) for i in range(9)]
    exact, rounded = (driver.generate(requests, 1, chunk=9) for driver in drivers)
    worst = []
    for ours, theirs in zip(exact, rounded, strict=True):
        reference = {entry.token_id: entry.logprob for entry in ours[0].top}
        worst.append(max(abs(reference[entry.token_id] - entry.logprob) for entry in theirs[0].top[:500]))
    assert sorted(worst)[len(worst) // 2] < (0.3 if weights == "bf16" else 0.05)


def test_kv_is_the_same_however_it_was_cut(driver: Driver) -> None:
    """The pool's content does not depend on chunks beyond rounding, so a handed-over prefix fits any."""
    prompt = prompt_of(30)
    contents = []
    for chunk in (1000, 7, 1):
        sequence = Progress(make_request(str(chunk), prompt))
        while not sequence.draws:
            driver.step([sequence], chunk)
        contents.append(driver.pool[sequence.blocks].clone())
    torch.testing.assert_close(contents[0], contents[1], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(contents[0], contents[2], rtol=1e-4, atol=1e-5)
