"""Shows the fleet to the policy that wishes for changes of roles, and passes its wishes on to workers."""

import asyncio
import logging
import secrets

from twinfer.core.clock import Clock
from twinfer.core.config import ElasticConfig, RoutingConfig
from twinfer.core.ids import ModelId, RequestId
from twinfer.core.messages import Become
from twinfer.gateway.fleet import Fleet
from twinfer.router.elastic import ElasticPolicy

logger = logging.getLogger(__name__)
LOOK_S = 0.1


async def keep_in_shape(
    fleet: Fleet, models: tuple[ModelId, ...], config: ElasticConfig, goals: RoutingConfig, clock: Clock
) -> None:
    """Move workers between the phases of their model until cancelled.

    Whether a worker did what it was told shows in its role; one that did not is told again after the cool-down.
    """
    policies = {model: ElasticPolicy(config, goals) for model in models}
    while True:
        snapshot = fleet.snapshot()
        for model, policy in policies.items():
            for wish in policy.see(snapshot.serving(model), clock.now()):
                logger.info("%s turns to %s: %s", wish.worker, wish.role.value, wish.reason)
                fleet.link(wish.worker).send(Become(RequestId(f"turn-{secrets.token_hex(8)}"), wish.role))
        await asyncio.sleep(LOOK_S)
