"""What rate a fleet may bear, in closed form: where to begin to look, and how long a piece of a trace should be.

No request waits for another one here and every batch is as large as goals allow, so that simulated rates lie below.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from bench.router_cells import Fleet, Shape
from twinfer.core.capabilities import Role
from twinfer.core.cost import StepCost, prompt_work
from twinfer.core.traces import TraceRequest

USUAL = 0.8
"""Share of the closed form that is usually borne."""
PIECE_S = 45.0
"""A piece of a trace lasts about so long, which is many times as long as reports of workers lag."""
LEAST = 400
"""Requests in a piece at least, or its share in time says little."""
TURNS = 2.5
"""A piece has so many times as many requests as can be answered at once, or a fleet bears any rate by taking all in."""
MAX_ROWS = 256


@dataclass(slots=True)
class _Rates:
    """Requests per second whose prompts, or answers, workers of some role could compute."""

    prompts: float = 0.0
    answers: float = 0.0


def usual_rate(fleet: Fleet, requests: Sequence[TraceRequest]) -> float:
    """Requests per second that a fleet may bear in the best of the shapes in which workers have different roles."""
    return USUAL * max(_at_most(fleet, shape, requests) for shape in fleet.shapes)


def enough(fleet: Fleet, requests: Sequence[TraceRequest]) -> int:
    """Requests in a piece."""
    at_once = 0.0
    for part in fleet.scenario(fleet.whole, {}).hardware.values():
        assert part.seed is not None
        at_once += part.pool.workers * max(0.0, _rows(part.seed, requests, fleet.tpot_s)[0])
    return max(LEAST, math.ceil(PIECE_S * usual_rate(fleet, requests)), math.ceil(TURNS * at_once))


def _at_most(fleet: Fleet, shape: Shape, requests: Sequence[TraceRequest]) -> float:
    rates = {role: _Rates() for role in Role}
    for part in fleet.scenario(shape, {}).hardware.values():
        assert part.seed is not None
        found = rates[part.pool.role]
        found.prompts += part.pool.workers / _prompt_s(part.seed, requests)
        found.answers += part.pool.workers * _answers_per_s(part.seed, requests, fleet.tpot_s)
    prompts, both, answers = rates[Role.PREFILL].prompts, rates[Role.BOTH], rates[Role.DECODE].answers
    all_of_both = both.prompts + both.answers
    share = (answers + both.answers - prompts) / all_of_both if all_of_both else 0.0
    share = max(0.0, min(1.0, share))
    return min(prompts + share * both.prompts, answers + (1.0 - share) * both.answers)


def _prompt_s(cost: StepCost, requests: Sequence[TraceRequest]) -> float:
    """Mean time of a prompt on a worker that does nothing else."""
    step, seconds = cost.decode_s(0, 0), 0.0
    for one in requests:
        work = prompt_work(0, one.input_tokens)
        seconds += -(-work.tokens // cost.chunk_tokens) * step + cost.added_s(work, step)
    return seconds / len(requests)


def _answers_per_s(cost: StepCost, requests: Sequence[TraceRequest], tpot_s: float) -> float:
    """With as many rows as the goal allows on a worker that does nothing else."""
    rows, step = _rows(cost, requests, tpot_s)
    return rows / step * len(requests) / sum(one.output_tokens for one in requests) if rows >= 1.0 else 0.0


def _rows(cost: StepCost, requests: Sequence[TraceRequest], tpot_s: float) -> tuple[float, float]:
    """How many a step may have within the goal, and how long it takes then."""
    tokens = sum(one.output_tokens for one in requests)
    positions = sum(one.output_tokens * (one.input_tokens + one.output_tokens / 2) for one in requests)
    row = cost.row_s + cost.context_s * positions / tokens
    rows = min(float(MAX_ROWS), (tpot_s - cost.fixed_s) / row) if row else float(MAX_ROWS)
    return rows, cost.fixed_s + rows * row
