"""The books of a gateway: each call that goes to the workers opens an account, and closes it once."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from twinfer.core.clock import MonotonicClock
from twinfer.core.ids import TenantId
from twinfer.core.route import RouteKind
from twinfer.core.service import Latency, Tier
from twinfer.gateway.base import Journey
from twinfer.gateway.invocation_log import Line
from twinfer.gateway.quotas import Quotas, Reservation
from twinfer.usage.prices import PriceList
from twinfer.usage.record import Status, Tokens, UsageRecord


def ignore(record: UsageRecord) -> None:
    """Keep no ledger."""


def charge_nobody(tenant: TenantId, model: str, num_tokens: int) -> None:
    """Count nothing."""


@dataclass(frozen=True, slots=True)
class Order:
    """What a call is about to use.

    Attributes:
        profile: the application inference profile that it named; empty for none.
        tier, latency: as they will be served.
        most: prompt and longest answers, in tokens.
    """

    request_id: str
    tenant: TenantId
    key_id: str
    model: str
    operation: str
    most: int
    profile: str = ""
    tier: Tier = Tier.DEFAULT
    latency: Latency = Latency.STANDARD


class Account:
    """One call's account."""

    def __init__(self, order: Order, at_ms: int, reservation: Reservation, books: "Books") -> None:
        self._order = order
        self._at_ms = at_ms
        self._reservation = reservation
        self._books = books
        self._closed = False

    def close(self, status: Status, tokens: Tokens, journeys: Sequence[Journey]) -> UsageRecord | None:
        """Tell what was used, of all answers together; a second time changes nothing, and there is no record."""
        if self._closed:
            return None
        self._closed = True
        order = self._order
        self._reservation.settle(tokens.charged)
        self._books.charged(order, tokens.charged)
        routed = [journey for journey in journeys if journey.route.decode]
        record = UsageRecord(
            request_id=order.request_id,
            at_ms=self._at_ms,
            tenant=order.tenant,
            key_id=order.key_id,
            model=order.model,
            profile=order.profile,
            operation=order.operation,
            status=status,
            tier=order.tier,
            latency=order.latency,
            route=_route([journey.route.kind for journey in routed]),
            tokens=tokens,
            prefill_s=sum(journey.prefill_ms for journey in routed) / 1e3,
            decode_s=sum(journey.decode_ms for journey in routed) / 1e3,
            kv_byte_s=sum(journey.kv_byte_s for journey in routed),
            bytes_moved=sum(journey.transfer_bytes for journey in routed),
            recoveries=sum(journey.recoveries for journey in routed),
            cost_nano=self._books.prices.cost_nano(order.model, order.tier, tokens),
        )
        self._books.keep(record)
        return record


class Books:
    """Opens accounts.

    Args:
        keep: takes each record, at once.
        prices: of tokens.
        quotas: what tenants may use.
        charge: takes tenant, model and tokens that count against a quota, once for each account.
        now: Unix seconds.

    Attributes:
        log: takes a line of the invocation log for each account, where one is kept.
    """

    log: Callable[[Line], None] | None = None

    def __init__(
        self,
        keep: Callable[[UsageRecord], None] = ignore,
        prices: PriceList | None = None,
        quotas: Quotas | None = None,
        charge: Callable[[TenantId, str, int], None] = charge_nobody,
        now: Callable[[], float] = time.time,
    ) -> None:
        self.keep = keep
        self.prices = prices or PriceList()
        self.quotas = quotas or Quotas((), MonotonicClock())
        self._charge = charge
        self._now = now

    def open(self, order: Order) -> Account:
        """Begin a call's account.

        Raises:
            Throttled: the tenant has used up its quota.
        """
        reservation = self.quotas.reserve(order.tenant, order.model, order.tier, order.most)
        return Account(order, int(self._now() * 1000), reservation, self)

    def charged(self, order: Order, num_tokens: int) -> None:
        """An account was closed with so many tokens that count."""
        self._charge(order.tenant, order.model, num_tokens)


def _route(kinds: Sequence[RouteKind]) -> str:
    """The mode of all answers: ``disaggregated`` where one of them was."""
    if not kinds:
        return ""
    return (RouteKind.DISAGGREGATED if RouteKind.DISAGGREGATED in kinds else RouteKind.AGGREGATED).value
