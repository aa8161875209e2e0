"""How long answers are: what tells how many of them a stall makes late."""

import math

import msgspec

BINS = 40
PER_DOUBLING = 2.0


class AnswerLengths(msgspec.Struct, frozen=True):
    """A distribution of lengths in tokens, in bins of half a doubling from 1 on.

    Args:
        mean: of the lengths.
        below: share of the answers that end below each bin's beginning; one entry more than bins.
        weight_below: the same, each answer counted by its tokens: of the answers that run at some moment.
    """

    mean: float
    below: tuple[float, ...]
    weight_below: tuple[float, ...]

    def share_shorter(self, tokens: float) -> float:
        """Of new answers, those that will be shorter."""
        return _at(self.below, tokens)

    def weight_shorter(self, tokens: float) -> float:
        """Of answers under way, those that will be shorter when they end."""
        return _at(self.weight_below, tokens)


def bin_of(tokens: int) -> int:
    """The one that a length falls into."""
    return min(BINS - 1, int(PER_DOUBLING * math.log2(max(tokens, 1))))


def lengths(counts: list[float]) -> AnswerLengths:
    """The distribution with so many, or so much, in each bin; at least one above 0."""
    middles = [2.0 ** ((index + 0.5) / PER_DOUBLING) for index in range(len(counts))]
    tokens = [count * middle for count, middle in zip(counts, middles, strict=True)]
    return AnswerLengths(sum(tokens) / sum(counts), _cumulated(counts), _cumulated(tokens))


def _cumulated(values: list[float]) -> tuple[float, ...]:
    total, so_far, found = sum(values), 0.0, [0.0]
    for value in values:
        so_far += value
        found.append(so_far / total)
    return tuple(found)


def _at(cumulated: tuple[float, ...], tokens: float) -> float:
    if tokens <= 1.0:
        return 0.0
    place = PER_DOUBLING * math.log2(tokens)
    index = int(place)
    if index + 1 >= len(cumulated):
        return 1.0
    return cumulated[index] + (place - index) * (cumulated[index + 1] - cumulated[index])


UNKNOWN_LENGTHS = lengths([1.0 if 4 <= index < 20 else 1e-6 for index in range(BINS)])
"""Anything from 4 to 1024 tokens."""
