"""How much a load presses on the workers of each phase, and how much it would on other numbers of them: formulas.

    prefill = (worker-seconds of prompts that come per second + those that wait / ttft goal) / prefill workers
    decode  = what rows add to a step / (tpot goal - a step without rows), or the KV blocks in use of all, if more

1 is as much as the goals bear, and half of it half the load: a step that takes nearly the goal without rows, as where
weights take long to read, says little of that. With ``m'`` decode workers in place of ``m``, where rows take the share
``u`` of a step:

    rows' / rows = m/m'                              with more workers: as many rows are under way as now
                   m/m' (1 - u) / (1 - u m/m')       with fewer: as many tokens per second; endless where u m/m' >= 1
    held' / held = the same

Each is the larger of what either would say of rows and tokens: rows that still pile up do not show in the tokens yet,
and with fewer workers rows pile up until they are as fast as they come. Workers that report no costs count by what
waits for a phase or is under way in it, over what is configured as much.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from twinfer.core.config import ElasticConfig, RoutingConfig
from twinfer.core.cost import StepCost
from twinfer.core.ids import Epoch, WorkerId
from twinfer.core.snapshot import WorkerState

LEAST_ROOM = 0.1
"""Share of the goal that is left to rows at least: a goal that no step holds should not hide how many there are."""


@dataclass(frozen=True, slots=True)
class Pressure:
    """Of one load on one model's workers, at one moment or on average.

    Attributes:
        prefill: as many prefill workers as would be under a pressure of 1.
        decoders: how many decode workers there are.
        idle: a step of theirs without rows, over its goal.
        rows: what their rows add to it.
        held: share of their KV blocks in use, or what stands for it.
    """

    prefill: float
    decoders: float
    idle: float
    rows: float
    held: float

    def on_prefill(self, workers: int) -> float:
        """If so many workers computed the prompts."""
        return self.prefill / workers

    def on_decode(self, workers: int) -> float:
        """If so many workers generated the answers; infinite if they could never keep up."""
        ratio = self.decoders / workers
        now = max(self.rows / max(1.0 - self.idle, LEAST_ROOM), self.held)
        if ratio <= 1.0 or not self.rows:
            return now * ratio
        left = self.idle + self.rows - self.rows * ratio
        return now * ratio * (self.idle / left) if left > 0.0 else float("inf")

    def worst(self, prefillers: int, decoders: int) -> float:
        """The larger of the two."""
        return max(self.on_prefill(prefillers), self.on_decode(decoders))


class Gauge:
    """Reads the pressure off the workers of one model, look by look."""

    def __init__(self, config: ElasticConfig, goals: RoutingConfig) -> None:
        self._config = config
        self._goals = goals
        self._prompts: dict[tuple[WorkerId, Epoch], int] = {}
        """Tokens of prompts that each prefill worker has had so far, computed or not."""

    def came(self, states: Sequence[WorkerState]) -> float:
        """Worker-seconds of prompts that came since the look before, where costs are known."""
        known, total = self._prompts, 0.0
        self._prompts = {}
        for state in states:
            identity, load = state.identity, state.load
            if state.cost is None or not identity.role.prefills:
                continue
            key, tokens = (identity.worker, identity.epoch), load.counters.prefill_tokens + load.backlog.tokens
            total += (tokens - known.get(key, tokens)) * _token_s(state, state.cost)
            self._prompts[key] = tokens
        return total

    def now(self, states: Sequence[WorkerState]) -> Pressure:
        """The pressure of what waits and is under way, without what only comes."""
        waits = sum(self._waits(state) for state in states if state.identity.role.prefills)
        decoders = [state for state in states if state.identity.role.decodes]
        rows = sum(state.load.running + state.load.waiting for state in decoders) / len(decoders)
        costs = [state.cost for state in decoders if state.cost is not None]
        if not costs:
            return Pressure(waits, len(decoders), 0.0, 0.0, rows / self._config.decode_requests)
        context = sum(state.load.decode_context for state in decoders) / len(decoders)
        idle_s = sum(cost.pace * cost.fixed_s for cost in costs) / len(costs)
        step_s = sum(cost.pace * cost.decode_s(rows, context) for cost in costs) / len(costs)
        held = sum((one.live + one.promised) / max(one.total, 1) for one in (state.load.blocks for state in decoders))
        goal_s = self._goals.tpot_goal_ms * 1e-3
        return Pressure(waits, len(decoders), idle_s / goal_s, (step_s - idle_s) / goal_s, held / len(decoders))

    def _waits(self, state: WorkerState) -> float:
        if state.cost is None:
            return state.load.waiting_tokens / self._config.prefill_tokens
        return state.load.backlog.tokens * _token_s(state, state.cost) / (self._goals.ttft_goal_ms * 1e-3)


def _token_s(state: WorkerState, cost: StepCost) -> float:
    """What a position of a prompt takes, in full steps; what it looks back to, as in prompts that wait."""
    backlog, full = state.load.backlog, cost.chunk_tokens
    own_s = cost.prefill_s(backlog) / backlog.tokens if backlog.tokens else cost.token_s
    return cost.pace * (cost.fixed_s + cost.shown_s(full, own_s * full, cost.fixed_s)) / full
