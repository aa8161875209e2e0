import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from twinfer.model import attention
from twinfer.model.attention import PLAIN, Scoring, causal_attention, decode_attention, fits_flash, prefill_attention

pytestmark = pytest.mark.torch


SCORINGS = {
    "plain": PLAIN,
    "scale": Scoring(scale=0.1),
    "softcap": Scoring(softcap=0.5),
    "sinks": Scoring(sinks=torch.tensor([-1.0, 0.0, 0.5, 2.0])),
    "all": Scoring(0.7, 0.9, torch.tensor([-1.0, 0.0, 0.5, 2.0])),
}


def naive(
    queries: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    place: tuple[int, int],
    scoring: Scoring = PLAIN,
) -> torch.Tensor:
    """Attention by the definition, head by head and query by query, in fp64; keys are from position 0.

    ``place`` is the position of the first query, and the window.
    """
    start, window = place
    result = torch.zeros_like(queries, dtype=torch.float64)
    share = queries.shape[1] // keys.shape[0]
    for i in range(len(queries)):
        position = start + i
        seen = slice(max(0, position - window + 1) if window else 0, position + 1)
        for head in range(queries.shape[1]):
            key, value = keys[head // share, seen].double(), values[head // share, seen].double()
            scores = key @ queries[i, head].double() * (scoring.scale or 1 / math.sqrt(queries.shape[2]))
            if scoring.softcap:
                scores = (scores / scoring.softcap).tanh() * scoring.softcap
            weights = scores.exp()
            total = weights.sum() + (0.0 if scoring.sinks is None else math.exp(scoring.sinks[head]))
            result[i, head] = (weights / total) @ value
    return result


def random_tensors(
    heads: int, kv_heads: int, start: int, count: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Queries ``[count, heads, 8]`` and K and V ``[kv_heads, start + count + 3, 8]``: a block's tail follows."""
    generator = torch.Generator().manual_seed(start * 1000 + count)
    shapes = ((count, heads, 8), (kv_heads, start + count + 3, 8), (kv_heads, start + count + 3, 8))
    queries, keys, values = (torch.randn(shape, generator=generator) for shape in shapes)
    return queries, keys, values


@settings(max_examples=40, deadline=None)
@given(
    start=st.integers(0, 40),
    count=st.integers(1, 60),
    kv_heads=st.sampled_from([1, 2]),
    window=st.sampled_from([0, 1, 5, 33]),
    skipped=st.integers(0, 40),
    how=st.tuples(st.sampled_from(list(SCORINGS.values())), st.integers(0, 40)),
)
def test_prefill(start: int, count: int, kv_heads: int, window: int, skipped: int, how: tuple[Scoring, int]) -> None:
    """Tiled attention with history, grouped heads, a window, skipped early keys and any scoring is the definition's."""
    queries, keys, values = random_tensors(4, kv_heads, start, count)
    scoring, long_past = how
    first_key = min(skipped, max(0, start - window + 1)) if window else 0
    result = torch.empty_like(queries)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(attention, "_TILE_QUERIES", 16)
        patch.setattr(attention, "_LONG_PAST", long_past)
        place = (start, first_key, window)
        prefill_attention(queries, keys[None, :, first_key:], values[None, :, first_key:], result, place, scoring)
    expected = naive(queries, keys, values, (start, window), scoring).float()
    torch.testing.assert_close(expected, result, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("scoring", SCORINGS.values(), ids=SCORINGS)
@pytest.mark.parametrize("kv_heads", [1, 2, 4])
def test_decode(kv_heads: int, scoring: Scoring) -> None:
    """Each sequence of a batch attends as if alone, whatever stands behind its mask."""
    lengths = (1, 9, 12)
    cases = [random_tensors(4, kv_heads, length - 1, 1) for length in lengths]
    keys, values = (torch.full((3, kv_heads, 15, 8), 9.0) for _ in range(2))
    mask = torch.full((3, 1, 1, 15), -torch.inf)
    for i, (length, (_, key, value)) in enumerate(zip(lengths, cases, strict=True)):
        keys[i, :, :length], values[i, :, :length] = key[:, :length], value[:, :length]
        mask[i, ..., :length] = 0.0
    result = decode_attention(torch.cat([queries for queries, _, _ in cases]), keys, values, mask, scoring)
    for i, length in enumerate(lengths):
        expected = naive(*cases[i], (length - 1, 0), scoring)[0].float()
        torch.testing.assert_close(expected, result[i], rtol=1e-5, atol=1e-5)


@settings(max_examples=40, deadline=None)
@given(
    start=st.integers(0, 40),
    count=st.integers(1, 60),
    kv_heads=st.sampled_from([1, 2, 4]),
    scale=st.sampled_from([None, 0.3]),
    dtype=st.sampled_from([torch.float32, torch.bfloat16]),
)
def test_without_a_mask(start: int, count: int, kv_heads: int, scale: float | None, dtype: torch.dtype) -> None:
    """What GPUs do with every chunk: from the start in one causal call, behind a past in two that are put together."""
    queries, keys, values = (each.to(dtype) for each in random_tensors(4, kv_heads, start, count))
    expected = naive(queries, keys, values, (start, 0), Scoring(scale)).float()
    found = causal_attention(queries, keys[None], values[None], start, scale).float()
    tolerance = 1e-5 if dtype == torch.float32 else 0.02
    torch.testing.assert_close(expected, found, rtol=tolerance, atol=tolerance)


def test_a_window_that_hides_nothing_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """Up to as many positions as the window has, a chunk goes the way of models without one."""
    monkeypatch.setattr(attention, "_LONG_PAST", 0)
    ways: list[int] = []
    monkeypatch.setattr(attention, "causal_attention", lambda *args: ways.append(args[3]) or causal_attention(*args))
    queries, keys, values = random_tensors(4, 2, 3, 5)
    for window in (0, 7, 8, 9):
        result = torch.empty_like(queries)
        prefill_attention(queries, keys[None], values[None], result, (3, 0, window))
        torch.testing.assert_close(naive(queries, keys, values, (3, window)).float(), result, rtol=1e-5, atol=1e-5)
    assert [3, 3, 3] == ways


def test_what_flash_kernels_take() -> None:
    """Half precision, and heads of a multiple of 8 elements up to 256; all else is attended in tiles."""
    sizes = [
        (torch.bfloat16, 128),
        (torch.float16, 256),
        (torch.float32, 128),
        (torch.bfloat16, 12),
        (torch.bfloat16, 264),
    ]
    assert [True, True, False, False, False] == [fits_flash(*size) for size in sizes]
