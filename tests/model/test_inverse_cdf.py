import math
from collections import Counter
from collections.abc import Sequence

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from twinfer.core.request import Sampling
from twinfer.model.inverse_cdf import Truncation, decide, order, uniform

SAMPLINGS = st.builds(
    Sampling,
    top_k=st.sampled_from([0, 1, 3, 50]),
    top_p=st.sampled_from([1.0, 0.9, 0.5, 1e-6]),
    min_p=st.sampled_from([0.0, 0.05, 0.5, 1.0]),
)
LOGITS = st.lists(st.sampled_from([0.0, 0.5, 1.0, 2.0, 3.5]) | st.floats(-4, 4, width=32), min_size=1, max_size=30)
UNIFORMS = st.floats(0.0, 1.0, exclude_max=True)


def draw(logits: Sequence[float], sampling: Sampling, number: float, width: int | None = None) -> int:
    """The token of one row, looking at its ``width`` best only; -1 where these cannot tell."""
    row = np.asarray([logits], np.float32) - np.float32(max(logits))
    ids = np.argsort(-row, axis=-1, kind="stable")[:, :width]
    values, ids = order(np.take_along_axis(row, ids, -1), ids)
    total = np.exp(row.astype(np.float64)).sum(1)
    how = Truncation.of([sampling], [number], len(logits))
    place = decide(values, total, how, len(logits))[0]
    return -1 if place < 0 else int(ids[0, place])


def naive(logits: Sequence[float], sampling: Sampling, number: float) -> tuple[int, float]:
    """The definitions on a Python list: the token, and how near the number is to another one's share."""
    best = max(np.float32(value) for value in logits)
    weights = {token: math.exp(np.float32(value) - best) for token, value in enumerate(logits)}
    tokens = sorted(weights, key=lambda token: (-np.float32(logits[token]), token))
    tokens = tokens[: sampling.top_k or None]
    if sampling.top_p < 1.0:
        bound, mass, nucleus = sampling.top_p * sum(weights[token] for token in tokens), 0.0, []
        for token in tokens:
            if mass < bound - 1e-12:
                nucleus.append(token)
            mass += weights[token]
        tokens = nucleus
    if sampling.min_p > 0.0:
        tokens = [token for token in tokens if weights[token] >= sampling.min_p]
    target, mass, margin = number * sum(weights[token] for token in tokens), 0.0, math.inf
    chosen = tokens[-1]
    for token in tokens:
        mass += weights[token]
        margin = min(margin, abs(mass - target))
        if mass > target:
            chosen = token
            break
    return chosen, margin


@given(LOGITS, SAMPLINGS, UNIFORMS)
def test_definitions(logits: list[float], sampling: Sampling, number: float) -> None:
    """Masks and draw are those of the definitions, wherever rounding leaves no doubt."""
    expected, margin = naive(logits, sampling, number)
    if margin > 1e-9:
        assert expected == draw(logits, sampling, number)


@given(LOGITS, SAMPLINGS, UNIFORMS, st.integers(1, 30))
def test_head_decides_the_same_or_not_at_all(
    logits: list[float], sampling: Sampling, number: float, width: int
) -> None:
    """Looking at the best few either gives the token of the whole row, or says that it cannot tell."""
    assert draw(logits, sampling, number, width) in (-1, draw(logits, sampling, number))


def test_head_often_decides() -> None:
    """With most of the mass in the head, the rest is not needed."""
    logits = [10.0, 9.0, 8.0, *[0.0] * 50]
    for sampling in (Sampling(), Sampling(top_p=0.9), Sampling(top_k=2), Sampling(min_p=0.2)):
        assert draw(logits, sampling, 0.8, width=4) != -1


def test_rows_do_not_meet() -> None:
    """Rows with different bounds give what each gives alone."""
    samplings = [Sampling(), Sampling(top_k=2), Sampling(top_p=0.6), Sampling(min_p=0.4), Sampling(top_k=3, top_p=0.9)]
    logits = np.random.default_rng(0).normal(size=(5, 20)).astype(np.float32)
    row = logits - logits.max(1, keepdims=True)
    values, ids = order(row, np.broadcast_to(np.arange(20), row.shape))
    how = Truncation.of(samplings, [0.7] * 5, 20)
    places = decide(values, np.exp(row.astype(np.float64)).sum(1), how, 20)
    assert [draw(logits[i].tolist(), samplings[i], 0.7) for i in range(5)] == ids[np.arange(5), places].tolist()


@given(st.lists(st.sampled_from([0.0, -0.0, -1.0, -2.5]) | st.floats(-(2.0**90), 0, width=32), min_size=1, max_size=20))
def test_order(values: list[float]) -> None:
    """Values fall, and ids rise among equals."""
    expected = sorted(range(len(values)), key=lambda i: (-values[i], i))
    ordered, ids = order(np.array([values], np.float32), np.arange(len(values))[None])
    assert expected == ids[0].tolist()
    assert [np.float32(values[i]) for i in expected] == ordered[0].tolist()


def test_excluded_token_is_never_drawn() -> None:
    """A token at minus infinity has no share, however near to 1 the number is."""
    row = np.array([[0.0, -1.0, -np.inf, -np.inf]], np.float32)
    total = np.exp(row.astype(np.float64)).sum(1) * (1 + 1e-7)
    how = Truncation.of([Sampling()], [1.0 - 2.0**-53], 4)
    assert decide(row, total, how, 4).tolist() == [1]


def chi_square(counts: Counter[int], expected: Sequence[float]) -> float:
    """Pearson's statistic."""
    total = sum(counts.values())
    return sum((counts[i] - share * total) ** 2 / (share * total) for i, share in enumerate(expected))


def test_distribution() -> None:
    """Over many token indices, tokens come as often as their probabilities say."""
    logits = [1.0, 0.0, -0.5, 0.3, 2.0, -1.0]
    weights = np.exp(logits)
    counts = Counter(draw(logits, Sampling(), uniform(11, 0, index)) for index in range(4000))
    # 5 degrees of freedom: above 20.5 with probability 0.001; seed and so the outcome are fixed.
    assert chi_square(counts, (weights / weights.sum()).tolist()) < 20.5


def test_uniform_numbers() -> None:
    """Numbers fill [0, 1) evenly, and seed, choice and index each change them."""
    numbers = [uniform(seed, choice, index) for seed in (-1, 0, 2**40) for choice in (0, 1) for index in range(1000)]
    assert all(0.0 <= number < 1.0 for number in numbers)
    assert len(set(numbers)) == 6000
    # 9 degrees of freedom: above 27.9 with probability 0.001.
    assert chi_square(Counter(int(number * 10) for number in numbers), [0.1] * 10) < 27.9


def test_uniform_is_fixed() -> None:
    """The numbers are part of the protocol: another version must draw the same."""
    assert [uniform(0, 0, 0), uniform(7, 1, 3)] == [0.5213453336981362, 0.09722422769684025]
