"""What only a GPU can show: that captured graphs and flash kernels compute what the general way does."""

import random
from pathlib import Path

import pytest
import torch

from tests.conftest import TinyCheckpoints
from tests.model.driver import Driver, Place
from tests.model.test_attention import naive
from tests.model.test_captured_step import (
    DENSE,
    LENGTHS,
    SMALL,
    advance,
    expect_the_same_up_to,
    logits,
    owned_by,
    started,
    step,
)
from twinfer.core.layout import KVDtype
from twinfer.model.attention import Scoring, causal_attention, prefill_attention
from twinfer.model.recorder import CudaGraphs
from twinfer.model.spec import StoredFormat

pytestmark = [
    pytest.mark.torch,
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


def a_driver(directory: Path, cache_dir: Path, weights: StoredFormat = "fp32", kv_dtype: KVDtype = "fp32") -> Driver:
    """On the first GPU, with captured steps in small shapes."""
    driver = Driver(directory, cache_dir, weights, kv_dtype, place=Place("cuda", CudaGraphs(torch.device("cuda", 0))))
    step(driver)._buckets = SMALL
    return driver


@pytest.mark.parametrize("family", DENSE)
def test_graphs_compute_what_the_general_way_does(family: str, tiny: TinyCheckpoints, cache_dir: Path) -> None:
    """Logits and KV, again and again on new inputs; what is no sequence's own may be no number at all."""
    shape, changes = DENSE[family]
    driver = a_driver(tiny(shape, **changes), cache_dir)
    sequences = started(driver)
    for _ in range(8):
        slices = [driver.slice_of(sequence, 1) for sequence in sequences]
        driver.pool[sorted({*range(len(driver.pool))} - {*owned_by(sequences)})] = torch.nan
        before = driver.pool.clone()
        expected = logits(driver.runner, slices, recorded=False)
        stored = driver.pool.clone()
        driver.pool.copy_(before)
        found = logits(driver.runner, slices, recorded=True)
        own = owned_by(sequences)
        torch.testing.assert_close(expected, found, rtol=1e-3, atol=1e-3)
        torch.testing.assert_close(stored[own], driver.pool[own], rtol=1e-3, atol=1e-3)
        advance(sequences, slices, found)
        driver.pool[driver.free] = 0.0


@pytest.mark.parametrize(
    ("weights", "kv_dtype", "tolerance"),
    [
        ("fp32", "fp8", 0.02),
        ("bf16", "bf16", 0.06),
        ("fp16", "fp16", 0.01),
        ("int8", "bf16", 0.06),
        ("int4", "bf16", 0.06),
    ],
)
def test_precisions(
    weights: StoredFormat, kv_dtype: KVDtype, tolerance: float, tiny: TinyCheckpoints, cache_dir: Path
) -> None:
    """So it is in other types of weights and KV, up to their rounding."""
    expect_the_same_up_to(tolerance, a_driver(tiny("tiny-qwen3"), cache_dir, weights, kv_dtype))


def test_graphs_of_many_shapes_share_their_memory(tiny: TinyCheckpoints, cache_dir: Path) -> None:
    """Whole answers in ever other shapes are those of a CPU."""
    numbers = random.Random(3)
    prompts = [[numbers.randrange(4096) for _ in range(length)] for length in LENGTHS]
    captured = a_driver(tiny("tiny-llama"), cache_dir)
    for _ in range(2):
        assert Driver(tiny("tiny-llama"), cache_dir).staggered(prompts, 24, 16) == captured.staggered(prompts, 24, 16)
    assert len(step(captured).recorded) > 3


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize(("heads", "kv_heads", "size"), [(4, 4, 64), (8, 2, 128), (7, 1, 96), (2, 1, 256)])
@pytest.mark.parametrize(("past", "count"), [(0, 1), (0, 65), (1, 64), (200, 17), (130, 256)])
def test_flash_kernels(dtype: torch.dtype, heads: int, kv_heads: int, size: int, past: int, count: int) -> None:
    """Prompts attend as the definition says, from the start and behind a past."""
    generator = torch.Generator().manual_seed(past)
    shapes = ((count, heads, size), (kv_heads, past + count + 3, size), (kv_heads, past + count + 3, size))
    queries, keys, values = (torch.randn(shape, generator=generator).to(dtype) for shape in shapes)
    expected = naive(queries, keys, values, (past, 0)).float()
    found = causal_attention(queries.cuda(), keys[None].cuda(), values[None].cuda(), past, None)
    torch.testing.assert_close(expected, found.float().cpu(), rtol=0.02, atol=0.02)


@pytest.mark.parametrize("scoring", [Scoring(), Scoring(scale=0.1), Scoring(softcap=0.5)], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("window", [0, 33])
def test_prompts_of_any_kind(scoring: Scoring, dtype: torch.dtype, window: int) -> None:
    """With windows and other scores, too, which go in tiles."""
    generator = torch.Generator().manual_seed(1)
    shapes = ((150, 8, 64), (2, 201, 64), (2, 201, 64))
    queries, keys, values = (torch.randn(shape, generator=generator).to(dtype) for shape in shapes)
    expected = naive(queries, keys, values, (50, window), scoring).float()
    result = torch.empty_like(queries, device="cuda")
    place = (50, 0, window)
    prefill_attention(queries.cuda(), keys[None].cuda(), values[None].cuda(), result, place, scoring)
    tolerance = 1e-4 if dtype == torch.float32 else 0.02
    torch.testing.assert_close(expected, result.float().cpu(), rtol=tolerance, atol=tolerance)
