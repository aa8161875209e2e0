"""How many prompt positions a step has room for beside answers, so that these do not wait longer than they may.

A step is the gap between two tokens of every answer in it. Chunked prefill bounds it by a number of positions (Agrawal
et al., "Sarathi-Serve", OSDI 2024); here it is a time, and what the engine's own steps cost says what fits into it:

    room = max(0, goal / pace - decode) + hides * decode
    n positions after s others take token * n + pair * n * (s + n / 2)

with the terms of :class:`~twinfer.core.cost.StepCost`, all in seconds.
"""

import math

import msgspec

from twinfer.core.cost import StepCost
from twinfer.core.load import LoadReport

LEAST = 32
"""Positions that a step has room for whatever answers take, so that prompts get on."""
EVEN = 16
"""Rows of a tile: a piece that is not a multiple of it computes what nobody needs."""


class StepRoom:
    """What is left of one step's time.

    Args:
        cost: of steps, as far as known.
        goal_s: what the step should take at most.
        rows: answers in it.
        context: positions that these look back to.
    """

    def __init__(self, cost: StepCost, goal_s: float, rows: int, context: int) -> None:
        self._cost = cost
        decode_s = cost.decode_s(rows, context)
        self._left_s = max(0.0, goal_s / cost.pace - decode_s) + cost.hides * decode_s
        self._taken = 0

    @property
    def is_full(self) -> bool:
        """Whether nothing more fits."""
        return self._left_s <= 0.0 and self._taken >= LEAST

    def of(self, wanted: int, start: int) -> int:
        """How many of the wanted positions of a prompt fit, after so many others of it."""
        if self.is_full:
            return 0
        fitting = self._fitting(start)
        return wanted if fitting >= wanted else min(wanted, max(int(fitting) // EVEN * EVEN, LEAST - self._taken, EVEN))

    def take(self, num_tokens: int, start: int) -> None:
        """So many positions of a prompt are in the step."""
        self._taken += num_tokens
        self._left_s -= num_tokens * (self._cost.token_s + self._cost.pair_s * (start + num_tokens / 2.0))

    def _fitting(self, start: int) -> float:
        """Solves ``square * n**2 + linear * n = left``."""
        if self._left_s <= 0.0:
            return 0.0
        linear, square = self._cost.token_s + self._cost.pair_s * start, self._cost.pair_s / 2.0
        if square:
            return (math.sqrt(linear * linear + 4.0 * square * self._left_s) - linear) / (2.0 * square)
        return self._left_s / linear if linear else math.inf


def told(load: LoadReport, cost: StepCost | None, goal_s: float) -> LoadReport:
    """A report with what steps cost, and in how small pieces they take prompts beside the answers that are there."""
    if cost is not None and goal_s > 0.0 and load.decode_rows:
        room = StepRoom(cost, goal_s, load.decode_rows, load.decode_context)
        cost = msgspec.structs.replace(cost, chunk_tokens=room.of(cost.chunk_tokens, 0))
    return msgspec.structs.replace(load, cost=cost)
