"""The books of a gateway: each call that goes to the workers opens an account, and closes it once."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from twinfer.core.ids import TenantId
from twinfer.core.route import RouteKind
from twinfer.gateway.base import Journey
from twinfer.usage.prices import PriceList
from twinfer.usage.record import Status, Tokens, UsageRecord


def ignore(record: UsageRecord) -> None:
    """Keep no ledger."""


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
    tier: str = "default"
    latency: str = "standard"


class Account:
    """One call's account."""

    def __init__(self, order: Order, at_ms: int, keep: Callable[[UsageRecord], None], prices: PriceList) -> None:
        self._order = order
        self._at_ms = at_ms
        self._keep = keep
        self._prices = prices
        self._closed = False

    def close(self, status: Status, tokens: Tokens, journeys: Sequence[Journey]) -> None:
        """Tell what was used, of all answers together; a second time changes nothing."""
        if self._closed:
            return
        self._closed = True
        order = self._order
        routed = [journey for journey in journeys if journey.route.decode]
        self._keep(
            UsageRecord(
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
                cost_nano=self._prices.cost_nano(order.model, order.tier, tokens),
            )
        )


class Books:
    """Opens accounts.

    Args:
        keep: takes each record, at once.
        prices: of tokens.
        now: Unix seconds.
    """

    def __init__(
        self,
        keep: Callable[[UsageRecord], None] = ignore,
        prices: PriceList | None = None,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._keep = keep
        self._prices = prices or PriceList()
        self._now = now

    def open(self, order: Order) -> Account:
        """Begin a call's account."""
        return Account(order, int(self._now() * 1000), self._keep, self._prices)


def _route(kinds: Sequence[RouteKind]) -> str:
    """The mode of all answers: ``disaggregated`` where one of them was."""
    if not kinds:
        return ""
    return (RouteKind.DISAGGREGATED if RouteKind.DISAGGREGATED in kinds else RouteKind.AGGREGATED).value
