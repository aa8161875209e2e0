"""Which worker should change its role, as the load tells: a policy with hysteresis, without a clock of its own.

    prefill pressure = share of prefill workers' time that prompts took + seconds of prompts that wait / ttft goal
    decode pressure  = the larger of step with its rows and contexts / tpot goal, and the KV blocks in use of all

Both are of the workers of a phase on average, and both can be asked for one worker less. Where workers report no costs,
what waits for a phase or is under way in it counts instead, over what is configured as much. A worker moves when, on
average over a window, the pressure on one phase is high and that on the other would be clearly lower even without it;
then nothing moves for a while. So the same load never asks for the worker back.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from twinfer.core.capabilities import Role
from twinfer.core.config import ElasticConfig, RoutingConfig
from twinfer.core.cost import StepCost
from twinfer.core.ids import WorkerId
from twinfer.core.snapshot import WorkerState

DEFAULT_GOALS = RoutingConfig()


@dataclass(frozen=True, slots=True)
class Wish:
    """This worker should have this role, for this reason."""

    worker: WorkerId
    role: Role
    reason: str


@dataclass(frozen=True, slots=True)
class Pressure:
    """On the two phases, at one moment or on average; ``without`` is with one worker less, infinite if it is the last.

    1 is as much as the goals bear, or what is configured as much.
    """

    prefill: float
    decode: float
    prefill_without: float
    decode_without: float

    @classmethod
    def of(
        cls, states: Sequence[WorkerState], config: ElasticConfig, goals: RoutingConfig = DEFAULT_GOALS
    ) -> "Pressure":
        """That of the workers of one model, both phases served."""
        prefillers = [state for state in states if state.identity.role.prefills]
        decoders = [state for state in states if state.identity.role.decodes]
        prefill = sum(_prefill(state, config, goals) for state in prefillers)
        return cls(
            _shared(prefill, len(prefillers)),
            _decode(decoders, len(decoders), config, goals),
            _shared(prefill, len(prefillers) - 1),
            _decode(decoders, len(decoders) - 1, config, goals),
        )


class ElasticPolicy:
    """Over the workers of one model."""

    def __init__(self, config: ElasticConfig, goals: RoutingConfig = DEFAULT_GOALS) -> None:
        self._config = config
        self._goals = goals
        self._seen: deque[tuple[float, Pressure]] = deque()
        self._quiet_until = float("-inf")

    def see(self, states: Sequence[WorkerState], now: float) -> Wish | None:
        """What the workers are now, and what should be changed.

        Whatever is wished leaves each phase with a worker. While a model's weights are being changed nothing is:
        workers with the old and the new ones cannot stand in for each other.
        """
        kinds = {state.identity.capabilities.fingerprint for state in states}
        roles = [state.identity.role for state in states]
        if len(kinds) > 1 or not any(role.prefills for role in roles) or not any(role.decodes for role in roles):
            self._seen.clear()
            return None
        self._seen.append((now, Pressure.of(states, self._config, self._goals)))
        if now - self._seen[0][0] < self._config.window_s or now < self._quiet_until:
            return None
        mean = self._mean(now)
        wish = self._between(Role.DECODE, Role.PREFILL, mean.decode_without, mean.prefill, states)
        wish = wish or self._between(Role.PREFILL, Role.DECODE, mean.prefill_without, mean.decode, states)
        if wish is not None:
            self._quiet_until = now + self._config.cooldown_s
            self._seen.clear()
        return wish

    def _mean(self, now: float) -> Pressure:
        while len(self._seen) > 1 and now - self._seen[1][0] >= self._config.window_s:
            self._seen.popleft()
        seen, total = [pressure for _, pressure in self._seen], len(self._seen)
        return Pressure(
            sum(one.prefill for one in seen) / total,
            sum(one.decode for one in seen) / total,
            sum(one.prefill_without for one in seen) / total,
            sum(one.decode_without for one in seen) / total,
        )

    def _between(
        self, giver: Role, taker: Role, without: float, of_taker: float, states: Sequence[WorkerState]
    ) -> Wish | None:
        """Whether a worker of one phase alone should serve the other phase alone."""
        givers = [state for state in states if state.identity.role is giver]
        num_serving = len(givers) + sum(state.identity.role is Role.BOTH for state in states)
        if not givers or num_serving < 2 or of_taker < self._config.high:
            return None
        if without > of_taker * self._config.bearable:
            return None
        least = min(givers, key=lambda state: (state.load.running + state.load.waiting, state.identity.worker))
        reason = f"pressure is {of_taker:.2f} on {taker.value}, and would be {without:.2f} on {giver.value} without it"
        return Wish(least.identity.worker, taker, reason)


def _prefill(state: WorkerState, config: ElasticConfig, goals: RoutingConfig) -> float:
    """One worker's part of the pressure on prefill."""
    cost = state.cost
    if cost is None:
        return state.load.waiting_tokens / config.prefill_tokens
    waits_s = cost.pace * cost.prefill_s(state.load.backlog + state.unreported)
    return state.prefill_share + waits_s / (goals.ttft_goal_ms * 1e-3)


def _decode(states: Sequence[WorkerState], workers: int, config: ElasticConfig, goals: RoutingConfig) -> float:
    """The pressure on decode, if so many workers bore what these bear."""
    if workers < 1:
        return float("inf")
    costs = [state.cost for state in states if state.cost is not None]
    rows = sum(state.load.running + state.load.waiting for state in states)
    if not costs:
        return rows / workers / config.decode_requests
    context = sum(state.load.decode_context for state in states)
    step_s = sum(_step_s(cost, rows / workers, context / workers) for cost in costs) / len(costs)
    used = sum((one.live + one.promised) / max(one.total, 1) for one in (state.load.blocks for state in states))
    return max(step_s / (goals.tpot_goal_ms * 1e-3), used / workers)


def _step_s(cost: StepCost, rows: float, context: float) -> float:
    return cost.pace * cost.decode_s(rows, context)


def _shared(amount: float, workers: int) -> float:
    return amount / workers if workers > 0 else float("inf")
