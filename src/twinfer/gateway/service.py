"""The service of a call: the tier and latency mode that it asked for, or the next best; decided before any byte."""

import dataclasses

import msgspec

from twinfer.core.ids import TenantId
from twinfer.core.service import Latency, Tier
from twinfer.gateway.exchange import Context, Work


async def place(work: Work, tenant: TenantId, context: Context, tier: Tier, latency: Latency) -> Work:
    """The work as it will be served.

    The reserved tier runs over into the default one where the tenant's share is used up or none; low latency into the
    standard mode where there is no pool for it, or the call is too long for it. Each is counted.

    Raises:
        CapacityError: accounts cannot be read now.
    """
    downgrades = context.meter.accounts.downgrades
    if tier is Tier.RESERVED and not await context.books.has_reserved(tenant, work.model.id, work.most):
        downgrades.labels(work.model.id, "reserved_used_up").inc()
        tier = Tier.DEFAULT
    if latency is Latency.OPTIMIZED and (reason := _too_much(work, context)):
        downgrades.labels(work.model.id, reason).inc()
        latency = Latency.STANDARD
    if tier is Tier.DEFAULT and latency is Latency.STANDARD:
        return work
    choices = tuple(
        dataclasses.replace(choice, request=msgspec.structs.replace(choice.request, tier=tier, latency=latency))
        for choice in work.choices
    )
    return dataclasses.replace(work, choices=choices)


def _too_much(work: Work, context: Context) -> str:
    """Why it cannot be served with low latency; empty when it can."""
    limit = context.config.routing.max_optimized_tokens
    if limit and work.most > limit:
        return "too_long_for_optimized"
    return "" if context.dispatcher.optimizes(work.model.id) else "no_optimized_pool"
