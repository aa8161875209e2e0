"""Which worker should change its role, as the load tells: a policy with hysteresis, without a clock of its own.

The pressure on a phase is what waits for it or is under way in it, by worker that serves it, over what is configured as
much. A worker moves when, on average over a window, one phase is under high pressure and the other under so little that
it would bear losing the worker; then nothing moves for a while.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from twinfer.core.capabilities import Role
from twinfer.core.config import ElasticConfig
from twinfer.core.ids import WorkerId
from twinfer.core.snapshot import WorkerState


@dataclass(frozen=True, slots=True)
class Wish:
    """This worker should have this role, for this reason."""

    worker: WorkerId
    role: Role
    reason: str


@dataclass(frozen=True, slots=True)
class Pressure:
    """On the two phases, at one moment or on average; 1 is what is configured as much."""

    prefill: float
    decode: float

    @classmethod
    def of(cls, states: Sequence[WorkerState], config: ElasticConfig) -> "Pressure":
        """That of the workers of one model, both phases served."""
        prefillers = [state.load for state in states if state.identity.role.prefills]
        decoders = [state.load for state in states if state.identity.role.decodes]
        waiting = sum(load.waiting_tokens for load in prefillers) / len(prefillers)
        under_way = sum(load.running + load.waiting for load in decoders) / len(decoders)
        return cls(waiting / config.prefill_tokens, under_way / config.decode_requests)


class ElasticPolicy:
    """Over the workers of one model."""

    def __init__(self, config: ElasticConfig) -> None:
        self._config = config
        self._seen: deque[tuple[float, Pressure]] = deque()
        self._quiet_until = float("-inf")

    def see(self, states: Sequence[WorkerState], now: float) -> Wish | None:
        """What the workers are now, and what should be changed.

        Whatever is wished leaves each phase with a worker.
        """
        roles = [state.identity.role for state in states]
        if not any(role.prefills for role in roles) or not any(role.decodes for role in roles):
            self._seen.clear()
            return None
        self._seen.append((now, Pressure.of(states, self._config)))
        if now - self._seen[0][0] < self._config.window_s or now < self._quiet_until:
            return None
        mean = self._mean(now)
        wish = self._between(Role.DECODE, Role.PREFILL, mean.decode, mean.prefill, states)
        wish = wish or self._between(Role.PREFILL, Role.DECODE, mean.prefill, mean.decode, states)
        if wish is not None:
            self._quiet_until = now + self._config.cooldown_s
            self._seen.clear()
        return wish

    def _mean(self, now: float) -> Pressure:
        while len(self._seen) > 1 and now - self._seen[1][0] >= self._config.window_s:
            self._seen.popleft()
        total = len(self._seen)
        prefill = sum(pressure.prefill for _, pressure in self._seen) / total
        return Pressure(prefill, sum(pressure.decode for _, pressure in self._seen) / total)

    def _between(
        self, giver: Role, taker: Role, of_giver: float, of_taker: float, states: Sequence[WorkerState]
    ) -> Wish | None:
        """Whether a worker of one phase alone should serve the other phase alone."""
        givers = [state for state in states if state.identity.role is giver]
        num_serving = len(givers) + sum(state.identity.role is Role.BOTH for state in states)
        if not givers or num_serving < 2 or of_taker < self._config.high:
            return None
        without = of_giver * num_serving / (num_serving - 1)
        if without > self._config.low:
            return None
        least = min(givers, key=lambda state: (state.load.running + state.load.waiting, state.identity.worker))
        reason = f"pressure is {of_taker:.2f} on {taker.value} and {of_giver:.2f} on {giver.value}"
        return Wish(least.identity.worker, taker, reason)
