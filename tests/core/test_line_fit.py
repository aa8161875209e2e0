"""Learned times: near the truth under noise, quick to see a slow-down, and back when it is over."""

import math
import random

from hypothesis import given, settings
from hypothesis import strategies as st

from twinfer.core.line_fit import LineFit

TRUTH = (0.004, 0.00005)


def drawn(seed: int) -> list[tuple[float, float]]:
    """Features of 300 steps of different sizes."""
    chance = random.Random(seed)
    return [(1.0, chance.uniform(1, 4000)) for _ in range(300)]


def seconds(features: tuple[float, float], line: tuple[float, float] = TRUTH) -> float:
    """The true time."""
    return sum(term * feature for term, feature in zip(line, features, strict=True))


def predicted(fit: LineFit, features: tuple[float, float]) -> float:
    """What was learned."""
    return fit.pace() * sum(term * feature for term, feature in zip(fit.line, features, strict=True))


def test_nothing_is_known_before_the_first_few() -> None:
    """Unless there was a line to begin with."""
    assert not LineFit((0.0, 0.0)).knows
    assert LineFit(TRUTH).knows
    assert LineFit(TRUTH).line == TRUTH


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1000), noise=st.floats(0.0, 0.3))
def test_noise_is_averaged(seed: int, noise: float) -> None:
    """Thirty percent of noise either way leave a prediction within thirty percent, with or without hiccups."""
    chance = random.Random(seed)
    fit = LineFit((0.0, 0.0))
    for step, features in enumerate(drawn(seed)):
        hiccup = 20.0 if step % 97 == 50 else 1.0
        fit.observe(features, seconds(features) * chance.uniform(1 - noise, 1 + noise) * hiccup)
    for _ in range(20):
        fit.observe((1.0, 1000.0), seconds((1.0, 1000.0)))
    assert 0.7 < predicted(fit, (1.0, 1000.0)) / seconds((1.0, 1000.0)) < 1.45


def test_a_slow_down_is_seen_within_seconds_and_so_is_its_end() -> None:
    """Ten times slower is believed to be at least five times slower after two seconds of steps; then it is over."""
    fit = LineFit(TRUTH)
    usual = (1.0, 500.0)
    for _ in range(200):
        fit.observe(usual, seconds(usual))
    elapsed = 0.0
    while elapsed < 2.0:
        fit.observe(usual, 10 * seconds(usual))
        elapsed += 10 * seconds(usual)
    assert predicted(fit, usual) > 5 * seconds(usual)
    elapsed = 0.0
    while elapsed < 2.0:
        fit.observe(usual, seconds(usual))
        elapsed += seconds(usual)
    assert 0.7 < predicted(fit, usual) / seconds(usual) < 1.5


def test_a_pace_is_forgotten_where_nothing_happens() -> None:
    """Who was slow, did nothing for long, and is quick now, is not taken for slow; who is slow still says so again."""
    for now, low, high in ((1.0, 0.9, 1.2), (10.0, 2.0, 10.0)):
        fit = LineFit(TRUTH)
        usual = (1.0, 500.0)
        for _ in range(20):
            fit.observe(usual, 10 * seconds(usual))
        assert fit.pace() > 2.0
        fit.observe(usual, now * seconds(usual), idle_s=30.0)
        for _ in range(10):
            fit.observe(usual, now * seconds(usual))
        assert low < fit.pace() <= high


def test_what_was_never_seen_stays_as_it_began() -> None:
    """A worker that only decodes does not forget what its profile says of prompts."""
    fit = LineFit((0.004, 0.00005))
    for _ in range(500):
        fit.observe((1.0, 0.0), 0.006)
    assert math.isclose(fit.line[1], 0.00005)
    assert abs(fit.pace() * fit.line[0] - 0.006) < 0.0006


def test_a_step_under_way_is_slow_before_it_ends() -> None:
    """Its age says so."""
    fit = LineFit(TRUTH)
    assert fit.pace((1.0, 0.0), 0.04) == 10.0
    assert fit.pace((1.0, 0.0), 0.001) == 1.0


def test_terms_are_never_negative() -> None:
    """Times that fall with what is in a step are noise."""
    fit = LineFit((0.0, 0.0))
    for size in range(1, 60):
        fit.observe((1.0, float(size)), 1.0 / size)
    assert all(term >= 0.0 for term in fit.line)
