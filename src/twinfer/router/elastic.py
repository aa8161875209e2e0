"""Which workers should change their role, as the load tells: a policy with hysteresis, without a clock of its own.

Of all ways to deal the workers out to the two phases that is best under which the worse of the two pressures is least
(``router/pressure.py``). When the worse one is high now, on average over a window, and would be clearly lower then, as
many workers as that takes change at once; then nothing changes for a while, and it settles: by how much a decode worker
more relieves the others is guessed from the rows that there are, so one of several may be asked for back.
"""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from twinfer.core.capabilities import Role
from twinfer.core.config import ElasticConfig, RoutingConfig
from twinfer.core.ids import WorkerId
from twinfer.core.snapshot import WorkerState
from twinfer.router.pressure import Gauge, Pressure

DEFAULT_GOALS = RoutingConfig()


@dataclass(frozen=True, slots=True)
class Wish:
    """This worker should have this role, for this reason."""

    worker: WorkerId
    role: Role
    reason: str


@dataclass(frozen=True, slots=True)
class _Look:
    at: float
    came_s: float
    """Worker-seconds of prompts that came since the look before."""
    pressure: Pressure


class ElasticPolicy:
    """Over the workers of one model."""

    def __init__(self, config: ElasticConfig, goals: RoutingConfig = DEFAULT_GOALS) -> None:
        self._config = config
        self._gauge = Gauge(config, goals)
        self._looks: deque[_Look] = deque()
        self._quiet_until = float("-inf")

    def see(self, states: Sequence[WorkerState], now: float) -> tuple[Wish, ...]:
        """What the workers are now, and what should be changed.

        Whatever is wished leaves each phase with a worker. While a model's weights are being changed nothing is:
        workers with the old and the new ones cannot stand in for each other.
        """
        kinds = {state.identity.capabilities.fingerprint for state in states}
        roles = [state.identity.role for state in states]
        if len(kinds) > 1 or not any(role.prefills for role in roles) or not any(role.decodes for role in roles):
            self._looks.clear()
            return ()
        self._looks.append(_Look(now, self._gauge.came(states), self._gauge.now(states)))
        if now - self._looks[0].at < self._config.window_s or now < self._quiet_until:
            return ()
        wishes = self._wishes(self._ahead(now), states)
        if wishes:
            self._quiet_until = now + self._config.cooldown_s
            self._looks.clear()
        return wishes

    def rest(self) -> None:
        """Roles are to stay for a while: what was seen before that does not count after it."""
        self._looks.clear()

    def _ahead(self, now: float) -> Pressure:
        """On average over the window; what got less in it, as it would be after a cool-down.

        What got more is not continued: short answers do so for less than a cool-down.
        """
        looks, config = self._looks, self._config
        while len(looks) > 1 and now - looks[1].at >= config.window_s:
            looks.popleft()
        past_s = max(now - looks[0].at, 1e-3)
        comes = sum(look.came_s for look in list(looks)[1:]) / past_s
        decoders = sum(look.pressure.decoders for look in looks) / len(looks)

        def then(of: Callable[[Pressure], float]) -> float:
            seen = [of(look.pressure) for look in looks]
            grown = min(_steady(seen), 0.0) / past_s * config.cooldown_s
            return max(0.0, sum(seen) / len(seen) + grown)

        return Pressure(
            max(comes, 0.0) + then(lambda one: one.prefill),
            decoders,
            sum(look.pressure.idle for look in looks) / len(looks),
            then(lambda one: one.rows * one.decoders) / decoders,
            then(lambda one: one.held * one.decoders) / decoders,
        )

    def _wishes(self, pressure: Pressure, states: Sequence[WorkerState]) -> tuple[Wish, ...]:
        """To deal the workers out in the best way, if that is worth it."""
        by_role = {role: [state for state in states if state.identity.role is role] for role in Role}
        prefillers, decoders = (len(by_role[Role.BOTH]) + len(by_role[role]) for role in (Role.PREFILL, Role.DECODE))

        def worst(moved: int) -> float:
            return pressure.worst(prefillers + moved, decoders - moved)

        least = max(-len(by_role[Role.PREFILL]), 1 - prefillers)
        most = min(len(by_role[Role.DECODE]), decoders - 1)
        more = min(range(least, most + 1), key=lambda moved: (worst(moved), abs(moved)))
        is_now, would_be = worst(0), worst(more)
        if is_now < self._config.high or would_be > is_now * self._config.bearable:
            return ()
        giver, taker = (Role.DECODE, Role.PREFILL) if more > 0 else (Role.PREFILL, Role.DECODE)
        reason = (
            f"pressure is {pressure.on_prefill(prefillers):.2f} on {prefillers} that prefill and "
            f"{pressure.on_decode(decoders):.2f} on {decoders} that decode, and would be at most {would_be:.2f} "
            f"on {prefillers + more} and {decoders - more}"
        )
        idlest = sorted(by_role[giver], key=_work)[: abs(more)]
        return tuple(Wish(state.identity.worker, taker, reason) for state in idlest)


def _steady(seen: Sequence[float]) -> float:
    """By how much something grew or shrank, as far as it did so in both halves alike: a peak is no growth."""
    middle = len(seen) // 2
    first, second = seen[middle] - seen[0], seen[-1] - seen[middle]
    if first * second <= 0.0:
        return 0.0
    return 2.0 * min(first, second, key=abs)


def _work(state: WorkerState) -> tuple[int, WorkerId]:
    return (state.load.running + state.load.waiting, state.identity.worker)
