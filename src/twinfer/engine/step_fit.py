"""Learns from an engine's own steps what they cost."""

from collections.abc import Iterable

from twinfer.core.cost import StepCost
from twinfer.core.line_fit import LineFit
from twinfer.core.step import Slice

Features = tuple[float, float, float, float, float]
"""Of a step: 1, prompt positions, these times the positions before each, decoding rows, positions they look back to."""
UNKNOWN = (0.0,) * 5


def features(slices: Iterable[Slice], later: int = 0) -> Features:
    """What is in a step, or on average in it and so many more like it."""
    tokens = pairs = rows = context = 0.0
    for part in slices:
        length = len(part.token_ids)
        if length > 1:
            tokens += length
            pairs += length * (part.start + length / 2)
        else:
            rows += 1
            context += part.start
    return 1.0, tokens, pairs, rows, context + rows * later / 2


class StepFit:
    """One engine's costs.

    Args:
        chunk_tokens: positions in one step at most.
        seed: the line to begin with, such as a device profile's.
    """

    def __init__(self, chunk_tokens: int, seed: StepCost | None = None) -> None:
        self._chunk_tokens = chunk_tokens
        self._fit = LineFit(UNKNOWN if seed is None else _terms(seed))
        self._ended = 0.0

    def observe(self, step: Features, seconds: float, began: float = 0.0, ended: float = 0.0) -> None:
        """A step took that long, or each of several that began and ended then."""
        self._fit.observe(step, seconds, began - self._ended)
        self._ended = ended

    def cost(self, running: tuple[Features, float] | None = None) -> StepCost | None:
        """What is known; ``None`` when nothing is.

        Args:
            running: the step under way and its age in seconds, which may say already that it is a slow one.
        """
        if not self._fit.knows:
            return None
        fixed, token, pair, row, context = self._fit.line
        pace = self._fit.pace() if running is None else self._fit.pace(*running)
        return StepCost(fixed, token, pair, row, context, pace, self._chunk_tokens)


def _terms(cost: StepCost) -> Features:
    return cost.fixed_s, cost.token_s, cost.pair_s, cost.row_s, cost.context_s
