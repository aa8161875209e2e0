"""What a tenant may use of a model in a minute: reserved before, settled after.

Each (tenant, model) has buckets that fill at a constant rate up to a minute's worth. A request takes its prompt and its
longest answer out of one, and gets back what it did not use; cache reads are free. The priority, default and flex tiers
share a bucket, the reserved tier has its own. The books of several gateways are separate.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from twinfer.core.clock import Clock
from twinfer.core.config import QuotaConfig
from twinfer.core.errors import Throttled
from twinfer.core.ids import TenantId
from twinfer.core.service import Tier

_MINUTE_S = 60.0


class Bucket:
    """A level that rises by ``per_min`` in a minute, and no higher than that; without a rate it never runs out."""

    def __init__(self, per_min: int, clock: Clock) -> None:
        self.per_min = per_min
        self._clock = clock
        self._level = float(per_min)
        self._at = clock.now()

    def missing_s(self, amount: int) -> float:
        """Seconds until so much can be taken; 0 for at once. What no bucket holds is never there: then a minute."""
        if not self.per_min:
            return 0.0
        self._rise()
        if amount > self.per_min:
            return _MINUTE_S
        return max(0.0, amount - self._level) / self.per_min * _MINUTE_S

    def change(self, amount: int) -> None:
        """Put in, or with a negative amount take out."""
        self._rise()
        self._level = min(self._level + amount, float(self.per_min))

    def _rise(self) -> None:
        now = self._clock.now()
        self._level = min(self._level + (now - self._at) / _MINUTE_S * self.per_min, float(self.per_min))
        self._at = now


@dataclass(frozen=True, slots=True)
class Reservation:
    """What a request holds of a bucket."""

    bucket: Bucket
    amount: int

    def settle(self, charged: int) -> None:
        """Give back what was not used. Once only."""
        self.bucket.change(self.amount - charged)


@dataclass(frozen=True, slots=True)
class _Allowance:
    requests: Bucket
    tokens: Bucket
    reserved: Bucket


class Quotas:
    """All allowances of one gateway.

    Args:
        rules: the first one that fits tenant and model decides; without one there is no bound.
    """

    def __init__(self, rules: Sequence[QuotaConfig], clock: Clock) -> None:
        self._rules = tuple(rules)
        self._clock = clock
        self._allowances: dict[tuple[TenantId, str], _Allowance] = {}

    def has_reserved(self, tenant: TenantId, model: str, most: int) -> bool:
        """Whether the tenant has a share of its own, and so much of it left."""
        reserved = self._allowance(tenant, model).reserved
        return bool(reserved.per_min) and reserved.missing_s(most) == 0

    def reserve(self, tenant: TenantId, model: str, tier: Tier, most: int) -> Reservation:
        """Take a request, and as many tokens as it may use.

        Raises:
            Throttled: there are not that many.
        """
        allowance = self._allowance(tenant, model)
        bucket = allowance.reserved if tier is Tier.RESERVED else allowance.tokens
        if wait_s := allowance.requests.missing_s(1):
            raise Throttled("Too many requests, please wait before trying again.", wait_s)
        if wait_s := bucket.missing_s(most):
            hint = (
                f" This request may use {most}, of {bucket.per_min} in a minute: lower its max tokens."
                if most > bucket.per_min
                else ""
            )
            raise Throttled(f"Too many tokens, please wait before trying again.{hint}", wait_s)
        allowance.requests.change(-1)
        bucket.change(-most)
        return Reservation(bucket, most)

    def _allowance(self, tenant: TenantId, model: str) -> _Allowance:
        key = (tenant, model)
        if key not in self._allowances:
            fits = (rule for rule in self._rules if fnmatchcase(tenant, rule.tenant) and fnmatchcase(model, rule.model))
            rule = next(fits, QuotaConfig())
            rates = (rule.requests_per_min, rule.tokens_per_min, rule.reserved_tokens_per_min)
            self._allowances[key] = _Allowance(*(Bucket(rate, self._clock) for rate in rates))
        return self._allowances[key]
