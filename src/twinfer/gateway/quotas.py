"""What a tenant may use of a model in a minute: reserved before, settled after, for all gateways of a machine together.

Each (tenant, model) has buckets that fill at a constant rate up to a minute's worth. A request takes its prompt and its
longest answer out of one, and gets back what it did not use; cache reads are free. The priority, default and flex tiers
share a bucket, the reserved tier has its own.

The buckets' levels are in the :mod:`day book <twinfer.usage.daybook>`, which all gateways read and change within its
transactions: the bound holds exactly however many there are, and what one had reserved when it was killed is settled by
the one that inherits its entries.
"""

from collections.abc import Sequence
from fnmatch import fnmatchcase

import msgspec

from twinfer.core.clock import Clock
from twinfer.core.config import QuotaConfig
from twinfer.core.errors import Throttled
from twinfer.core.ids import TenantId
from twinfer.core.service import Tier
from twinfer.usage.daybook import Hold, Page, Standing

_MINUTE_S = 60.0


class ReservedTaken(Throttled):
    """The reserved share that was there is used up by now: served as default, the request may still find room."""


class Quotas:
    """The rules, and how they are kept.

    Args:
        rules: the first one that fits tenant and model decides; without one there is no bound.
        clock: the same for all gateways of a machine.
    """

    def __init__(self, rules: Sequence[QuotaConfig], clock: Clock) -> None:
        self._rules = tuple(rules)
        self._clock = clock

    def has_reserved(self, page: Page, tenant: TenantId, model: str, most: int) -> bool:
        """Whether the tenant has a share of its own, and so much of it left."""
        per_min = self.rule(tenant, model).reserved_tokens_per_min
        return bool(per_min) and _missing_s(self._now(page, tenant, model).reserved, per_min, most) == 0

    def reserve(self, page: Page, tenant: TenantId, model: str, tier: Tier, most: int) -> Hold:
        """Take a request, and as many tokens as it may use.

        Raises:
            ReservedTaken: the share of the reserved tier has not that many.
            Throttled: there are not that many.
        """
        rule, standing = self.rule(tenant, model), self._now(page, tenant, model)
        hold = Hold(tenant, model, most, tier is Tier.RESERVED)
        if wait_s := _missing_s(standing.requests, rule.requests_per_min, 1):
            raise Throttled("Too many requests, please wait before trying again.", wait_s)
        lacking, per_min = standing.tokens, rule.tokens_per_min
        if hold.reserved:
            lacking, per_min = standing.reserved, rule.reserved_tokens_per_min
        if wait_s := _missing_s(lacking, per_min, most):
            hint = (
                f" This request may use {most}, of {per_min} in a minute: lower its max tokens."
                if most > per_min
                else ""
            )
            refusal = ReservedTaken if hold.reserved else Throttled
            raise refusal(f"Too many tokens, please wait before trying again.{hint}", wait_s)
        taken = msgspec.structs.replace(standing, requests=standing.requests + 1, held=standing.held + most)
        page.stand(tenant, model, _change(taken, hold, most))
        return hold

    def settle(self, page: Page, hold: Hold, charged: int) -> None:
        """Give back what was not used. Once only."""
        standing = self._now(page, hold.tenant, hold.model)
        settled = msgspec.structs.replace(
            standing, held=standing.held - hold.amount, charged=standing.charged + charged
        )
        page.stand(hold.tenant, hold.model, _change(settled, hold, charged - hold.amount))

    def rule(self, tenant: TenantId, model: str) -> QuotaConfig:
        """What is allowed."""
        fits = (rule for rule in self._rules if fnmatchcase(tenant, rule.tenant) and fnmatchcase(model, rule.model))
        return next(fits, QuotaConfig())

    def _now(self, page: Page, tenant: TenantId, model: str) -> Standing:
        """The standing of this moment, with buckets that have filled since they were last touched."""
        standing, rule, now = page.standing(tenant, model), self.rule(tenant, model), self._clock.now()
        minutes = max(0.0, now - standing.at_s) / _MINUTE_S  # the clock begins anew with the machine
        return msgspec.structs.replace(
            standing,
            requests=_fill(standing.requests, rule.requests_per_min, minutes),
            tokens=_fill(standing.tokens, rule.tokens_per_min, minutes),
            reserved=_fill(standing.reserved, rule.reserved_tokens_per_min, minutes),
            at_s=now,
        )


def _fill(lacking: float, per_min: int, minutes: float) -> float:
    """What is lacking after a while; nothing of a bucket without a bound."""
    return max(0.0, lacking - minutes * per_min) if per_min else 0.0


def _missing_s(lacking: float, per_min: int, amount: int) -> float:
    """Seconds until so much can be taken; 0 for at once. What no bucket holds is never there: then a minute."""
    if not per_min:
        return 0.0
    if amount > per_min:
        return _MINUTE_S
    return max(0.0, lacking + amount - per_min) / per_min * _MINUTE_S


def _change(standing: Standing, hold: Hold, amount: int) -> Standing:
    """Take out of the hold's bucket, or with a negative amount put in, which cannot overflow."""
    if hold.reserved:
        return msgspec.structs.replace(standing, reserved=max(0.0, standing.reserved + amount))
    return msgspec.structs.replace(standing, tokens=max(0.0, standing.tokens + amount))
