"""Shows the fleet to the policy that wishes for changes of roles, and passes its wishes on to workers.

While a launcher changes workers nothing is wished for (``cluster/standstill.py``).
"""

import asyncio
import logging
import secrets
from collections.abc import Callable
from pathlib import Path

from twinfer.cluster.standstill import Order, standing_order
from twinfer.core.capabilities import Role
from twinfer.core.clock import Clock
from twinfer.core.config import ElasticConfig, RoutingConfig
from twinfer.core.ids import ModelId, RequestId, WorkerId
from twinfer.core.messages import Become
from twinfer.core.process import Standstill
from twinfer.gateway.fleet import Fleet
from twinfer.router.elastic import ElasticPolicy

logger = logging.getLogger(__name__)
LOOK_S = 0.1
SETTLE_S = 1.0
"""In which a worker that was told to turn says that it does."""


class Pause:
    """Knows when roles are to stay, and answers whoever ordered it.

    Args:
        roster: where orders stand; ``None`` where nobody gives any.
        tell: takes the answer to each, once all workers that it names are reached and keep their roles. Others, of
            another model or started by hand, may leave meanwhile, or not be there.
    """

    def __init__(self, roster: Path | None, tell: Callable[[Standstill], None]) -> None:
        self._roster = roster
        self._tell = tell
        self._order: Order | None = None
        self._since = 0.0
        self._told: Order | None = None

    def lasts(self, fleet: Fleet, now: float) -> bool:
        """Whether roles stay as they are."""
        order = None if self._roster is None else standing_order(self._roster)
        if order != self._order:
            self._order, self._since = order, now
        if order is not None and order != self._told and now - self._since >= SETTLE_S:
            roles = _settled_roles(fleet)
            if roles.keys() >= set(order.workers):
                self._tell(Standstill(order.number, {worker: roles[worker] for worker in order.workers}))
                self._told = order
        return order is not None


def _settled_roles(fleet: Fleet) -> dict[WorkerId, Role]:
    """Of workers that are reached and do not turn."""
    links = [fleet.link(worker) for worker in fleet.present()]
    there = [link.identity for link in links if link.identity and link.load and not link.load.draining]
    return {identity.worker: identity.role for identity in there}


async def keep_in_shape(
    fleet: Fleet,
    models: tuple[ModelId, ...],
    config: ElasticConfig,
    goals: RoutingConfig,
    clock: Clock,
    pause: Pause,
) -> None:
    """Move workers between the phases of their model until cancelled.

    Whether a worker did what it was told shows in its role; one that did not is told again after the cool-down.
    """
    policies = {model: ElasticPolicy(config, goals) for model in models}
    while True:
        if pause.lasts(fleet, clock.now()):
            for policy in policies.values():
                policy.rest()
            await asyncio.sleep(LOOK_S)
            continue
        snapshot = fleet.snapshot()
        for model, policy in policies.items():
            for wish in policy.see(snapshot.serving(model), clock.now()):
                logger.info("%s turns to %s: %s", wish.worker, wish.role.value, wish.reason)
                fleet.link(wish.worker).send(Become(RequestId(f"turn-{secrets.token_hex(8)}"), wish.role))
        await asyncio.sleep(LOOK_S)
