"""How long it is believed that something is slower, or faster, than usual, when nothing new is learned of it."""

import math

FORGET_S = 4.0
"""In so long without news, half of the logarithm of a pace is forgotten."""


def left_after(idle_s: float) -> float:
    """What is left of the logarithm of a pace of which nothing was learned for so long."""
    return math.pow(0.5, max(idle_s, 0.0) / FORGET_S)


def faded(pace: float, age_s: float) -> float:
    """A pace of which nothing new was learned for so long."""
    if 0.8 < pace < 1.25:
        return pace
    return math.exp(math.log(pace) * left_after(age_s))
