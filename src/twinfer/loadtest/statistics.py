"""Percentiles with the intervals in which they lie, by resampling blocks of requests.

Requests that follow each other are alike: they met the same queue. So not single requests are drawn again but blocks of
neighbours, 30 to a run (moving-block bootstrap; Kuensch 1989). For gaps between tokens a block holds all gaps of its
requests. A percentile is the smallest value that so many percent do not exceed.
"""

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
BLOCKS = 30
RESAMPLES = 500
CONFIDENCE = 0.95
MAX_VALUES = 2_000_000
"""As many are resampled at a time."""
TINY_S = 1e-9


class Estimate(msgspec.Struct, frozen=True):
    """A number and the interval in which it lies with 95 % confidence."""

    value: float
    low: float
    high: float


class Distribution(msgspec.Struct, frozen=True):
    """Of one quantity.

    Args:
        count: values.
        mean: of all.
        p50, p90, p95, p99: percentiles.
    """

    count: int
    mean: Estimate
    p50: Estimate
    p90: Estimate
    p95: Estimate
    p99: Estimate


PERCENTS = (50, 90, 95, 99)


def percentile(ordered: Sequence[float], percent: float) -> float:
    """The value that so many percent do not exceed, of values in order; of none, 0."""
    if len(ordered) == 0:
        return 0.0
    return ordered[max(0, math.ceil(percent / 100 * len(ordered)) - 1)]


def distribution(groups: Sequence[Sequence[float]], seed: int) -> Distribution | None:
    """Of values that come in groups, one for each request in order; ``None`` where there are no values."""
    blocks = _blocks([np.asarray(group, dtype=np.float64) for group in groups if len(group)])
    if not blocks:
        return None
    values = np.concatenate(blocks)
    order = np.argsort(values, kind="stable")
    owner = np.repeat(np.arange(len(blocks)), [len(block) for block in blocks])[order]
    ordered = values[order]
    sums, sizes = np.array([block.sum() for block in blocks]), np.array([len(block) for block in blocks])
    resamples = max(100, min(RESAMPLES, 50 * MAX_VALUES // len(values)))
    drawn = _resampled_counts(len(blocks), seed)[:resamples]
    resampled = np.array([_weighted(ordered, weights[owner]) for weights in drawn])
    means = drawn @ sums / (drawn @ sizes)
    found, every = [_estimate(float(values.mean()), means)], ordered.tolist()
    for column, percent in enumerate(PERCENTS):
        found.append(_estimate(percentile(every, percent), resampled[:, column]))
    return Distribution(len(values), *found)


def share(good: Sequence[bool], seed: int) -> Estimate:
    """The share of requests that are good."""
    blocks = _blocks([np.array([float(one)]) for one in good])
    if not blocks:
        return Estimate(0.0, 0.0, 0.0)
    drawn = _resampled_counts(len(blocks), seed)
    sums, sizes = np.array([block.sum() for block in blocks]), np.array([len(block) for block in blocks])
    found = _estimate(float(sums.sum() / sizes.sum()), drawn @ sums / (drawn @ sizes))
    return Estimate(found.value, max(0.0, found.low), min(1.0, found.high))


Change = Callable[[Floats, Floats], Floats]
"""Relative changes from some requests' first values to their second: two of [samples, requests] to [samples]."""


def typical_change(first: Floats, second: Floats) -> Floats:
    """The median request's change, each request against its twin."""
    return np.asarray(np.median(second / np.maximum(first, TINY_S), axis=1) - 1)


def change_at(percent: float) -> Change:
    """The change of a percentile."""

    def change(first: Floats, second: Floats) -> Floats:
        place = max(0, math.ceil(percent / 100 * first.shape[1]) - 1)
        before, after = (np.partition(values, place, axis=1)[:, place] for values in (first, second))
        return np.asarray(after / np.maximum(before, TINY_S) - 1)

    return change


def paired(first: Floats, second: Floats, change: Change, confidence: float, seed: int) -> Estimate:
    """A relative change from values of one run to those of another for the same requests.

    Args:
        first, second: [requests], in the same order.
        change: what changes.
        confidence: of the interval.
        seed: of the resampling.
    """
    count = len(first)
    blocks = _num_blocks(count)
    within = np.arange(-(-count // blocks))
    starts = np.random.default_rng(seed).integers(0, count, (2 * RESAMPLES, blocks, 1))
    batch = max(1, MAX_VALUES // count)
    changes = []
    for begin in range(0, len(starts), batch):
        index = ((starts[begin : begin + batch] + within) % count).reshape(-1, blocks * len(within))
        changes.append(change(first[index], second[index]))
    return _estimate(float(change(first[None], second[None])[0]), np.concatenate(changes), confidence)


def _num_blocks(count: int) -> int:
    return max(1, min(BLOCKS, count))


def _blocks(groups: list[Floats]) -> list[Floats]:
    """Neighbours together, as evenly as it goes."""
    if not groups:
        return []
    edges = np.linspace(0, len(groups), _num_blocks(len(groups)) + 1).astype(int)
    return [np.concatenate(groups[low:high]) for low, high in itertools.pairwise(edges)]


def _resampled_counts(num_blocks: int, seed: int) -> Any:
    """How often each block was drawn: [resamples, blocks]."""
    return np.random.default_rng(seed).multinomial(num_blocks, np.full(num_blocks, 1 / num_blocks), RESAMPLES)


def _weighted(ordered: Floats, weights: NDArray[np.int64]) -> list[float]:
    below = np.cumsum(weights)
    places = np.searchsorted(below, [max(1, math.ceil(percent / 100 * below[-1])) for percent in PERCENTS])
    return [float(ordered[place]) for place in places]


def _estimate(value: float, resampled: Floats, confidence: float = CONFIDENCE) -> Estimate:
    """Percentile interval, a little wider than drawn: few blocks know their spread badly (Student's factor)."""
    blocks_factor = math.sqrt(BLOCKS / (BLOCKS - 1)) * 1.05
    low, high = np.quantile(resampled, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Estimate(value, value - blocks_factor * (value - float(low)), value + blocks_factor * (float(high) - value))
