"""Log probabilities as JSON can hold them."""

_LOWEST = -9999.0
"""Stands for a probability of zero."""


def finite(logprob: float | None) -> float:
    """A number that JSON has."""
    return max(logprob or 0.0, _LOWEST)
