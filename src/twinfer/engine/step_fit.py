"""Learns from an engine's own steps what they cost, and whether prompts hide behind decoding or add to it.

Both forms of ``StepCost`` are fitted side by side, and each is asked for the time of every step with a prompt in it
before it learns that time. Whichever was less wrong lately is what is told.

The form that hides has two branches, both of which are lines: a prompt that is done before the reading is counts
nothing, and one that is not counts whole while what hides it counts only for the rest. Which branch a step is on
follows from the line that is known, but a step that took much longer than its decoding is never laid to that alone.
"""

import math
from collections.abc import Iterable, Sequence

from twinfer.core.cost import StepCost
from twinfer.core.line_fit import LineFit
from twinfer.core.step import Slice

Features = tuple[float, float, float, float, float]
"""Of a step: 1, prompt positions, these times the positions before each, decoding rows, positions they look back to."""
UNKNOWN = (0.0,) * 5
HIDES = 0.9
"""Assumed share of a decode step that hides prompts, where nobody said another: all but what launches it."""
LONGER = 1.25
"""A step that takes so many times as long as its decoding is not only that."""
NEWS = 0.03
"""Weight of one step in the average error of a form."""
MOST = 1.0
"""An error, as a logarithm, counts for at most this: one hiccup says nothing about a form."""


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


def counted(step: Features, line: Sequence[float], hides: float, seconds: float = 0.0) -> Features:
    """What of a step its time depends on.

    Args:
        step: all that is in it.
        line: terms as far as they are known; a prompt of unknown cost is not hidden.
        hides: as in ``StepCost``.
        seconds: what it took at the usual pace, where it is over.
    """
    one, tokens, pairs, rows, context = step
    if not tokens or not hides:
        return step
    fixed, token, pair, row, position = line
    decode = fixed + row * rows + position * context
    if 0.0 < token * tokens + pair * pairs < hides * decode and seconds < LONGER * decode:
        return one, 0.0, 0.0, rows, context
    rest = 1.0 - hides
    return rest, tokens, pairs, rest * rows, rest * context


class StepFit:
    """One engine's costs.

    Args:
        chunk_tokens: positions in one step at most.
        seed: the costs to begin with, such as a device profile's.
    """

    def __init__(self, chunk_tokens: int, seed: StepCost | None = None) -> None:
        self._chunk_tokens = chunk_tokens
        line, hides = (UNKNOWN, 0.0) if seed is None else (_terms(seed), seed.hides)
        self._forms = [_Form(hides, line), _Form(0.0 if hides else HIDES, line)]
        self._ended = 0.0

    def observe(self, step: Features, seconds: float, began: float = 0.0, ended: float = 0.0) -> None:
        """A step took that long, or each of several that began and ended then."""
        for form in self._forms:
            form.observe(step, seconds, began - self._ended)
        self._ended = ended

    def cost(self, running: tuple[Features, float] | None = None) -> StepCost | None:
        """What is known; ``None`` when nothing is.

        Args:
            running: the step under way and its age in seconds, which may say already that it is a slow one.
        """
        best = min(self._forms, key=lambda form: form.error)
        if not best.fit.knows:
            return None
        fixed, token, pair, row, context = best.fit.line
        pace = best.fit.pace() if running is None else best.fit.pace(best.counted(running[0]), running[1])
        return StepCost(fixed, token, pair, row, context, pace, self._chunk_tokens, best.hides)


class _Form:
    """A line, given how much of a decode step hides prompts, and how wrong it was lately of steps with prompts."""

    def __init__(self, hides: float, line: Sequence[float]) -> None:
        self.hides = hides
        self.fit = LineFit(line)
        self.error = 0.0

    def counted(self, step: Features, seconds: float = 0.0) -> Features:
        return counted(step, self.fit.line, self.hides, seconds)

    def observe(self, step: Features, seconds: float, idle_s: float) -> None:
        if step[1] and seconds > 0.0 and self.fit.knows:
            expected = self.fit.seconds(self.counted(step))
            error = abs(math.log(seconds / expected)) if expected > 0.0 else MOST
            self.error += NEWS * (min(error, MOST) - self.error)
        self.fit.observe(self.counted(step, seconds / self.fit.pace()), seconds, idle_s)


def _terms(cost: StepCost) -> Features:
    return cost.fixed_s, cost.token_s, cost.pair_s, cost.row_s, cost.context_s
