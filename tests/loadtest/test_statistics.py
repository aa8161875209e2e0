"""Percentiles are exact, and intervals hold what they should as often as they say."""

import numpy as np
import pytest

from twinfer.loadtest.statistics import distribution, percentile, share


def test_percentiles():
    """The smallest value that so many percent do not exceed."""
    values = [float(value) for value in range(1, 101)]
    assert [50.0, 90.0, 99.0, 1.0, 0.0] == [
        percentile(values, 50),
        percentile(values, 90),
        percentile(values, 99),
        percentile(values[:1], 99),
        percentile([], 50),
    ]


def test_a_distribution_of_groups():
    """All values of all groups count, empty groups do not, and the seed decides the intervals."""
    groups = [[1.0, 2.0], [], [3.0], [4.0]]
    found = distribution(groups, 3)
    assert found is not None
    assert (4, 2.5, 2.0, 4.0) == (found.count, found.mean.value, found.p50.value, found.p99.value)
    assert found == distribution(groups, 3)
    assert distribution([[], []], 3) is None


def test_intervals_hold_the_truth():
    """About 95 of 100 samples have the true median in their interval."""
    dice, held = np.random.default_rng(5), 0
    for seed in range(100):
        found = distribution([[value] for value in dice.lognormal(0, 1, 300).tolist()], seed)
        assert found is not None
        held += found.p50.low <= 1.0 <= found.p50.high
    assert 88 <= held <= 100


def test_intervals_know_that_neighbours_are_alike():
    """Of values that come in runs of 20 equal ones, the interval is wider than of as many independent ones."""
    dice = np.random.default_rng(2)
    alone = distribution([[value] for value in dice.normal(10, 1, 600).tolist()], 0)
    runs = distribution([[value] for value in np.repeat(dice.normal(10, 1, 30), 20).tolist()], 0)
    assert alone is not None
    assert runs is not None
    assert runs.mean.high - runs.mean.low > 3 * (alone.mean.high - alone.mean.low)


def test_a_share():
    """Of all, with an interval around it."""
    found = share([True] * 90 + [False] * 10, 0)
    assert found.value == pytest.approx(0.9)
    assert found.low < 0.9 < found.high
