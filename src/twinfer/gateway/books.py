"""The books of a gateway: each call that goes to the workers opens an account, and closes it once."""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice

from twinfer.core.clock import MonotonicClock
from twinfer.core.errors import CapacityError
from twinfer.core.ids import TenantId
from twinfer.core.route import RouteKind
from twinfer.core.service import Latency, Tier
from twinfer.gateway.base import Journey
from twinfer.gateway.invocation_log import Line, Said
from twinfer.gateway.quotas import Quotas
from twinfer.usage.daybook import Daybook, Hold, Page
from twinfer.usage.prices import PriceList
from twinfer.usage.record import Status, Tokens, UsageRecord

log = logging.getLogger("twinfer.gateway")
_NOTED_AT_ONCE = 64
"""About a millisecond."""


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


Look = Callable[[], tuple[Tokens, Sequence[Journey]]]
"""Tells what a call has used so far, of all answers together, and what became of them."""


class Account:
    """One call's account."""

    def __init__(self, order: Order, at_ms: int, books: "Books") -> None:
        self._order = order
        self._at_ms = at_ms
        self._books = books
        self._look: Look = lambda: (Tokens(), ())
        self._noted = Tokens()
        self._hold: Hold | None = None

    def hold(self, hold: Hold) -> None:
        """It has reserved this, and is open."""
        self._hold = hold

    def watch(self, look: Look) -> None:
        """From now on this tells what is used."""
        self._look = look

    def news(self) -> UsageRecord | None:
        """The record as it would be if the gateway died now; nothing if that has been told."""
        tokens, journeys = self._look()
        if tokens == self._noted:
            return None
        self._noted = tokens
        return self.record(Status.FAILED, tokens, journeys)

    async def close(self, status: Status, said: Said | None = None) -> None:
        """Settle what was used, and write the line of the invocation log; a second time changes nothing.

        Args:
            said: for that line.
        """
        if self._hold is None:
            return
        hold, self._hold = self._hold, None
        record = self.record(status, *self._look())
        if self._books.log is not None:
            self._books.log(Line(record, said))  # first: whoever is cancelled while he settles has his line, too
        await self._books.settle(hold, record)

    def record(self, status: Status, tokens: Tokens, journeys: Sequence[Journey]) -> UsageRecord:
        """Its line in the ledger."""
        order = self._order
        routed = [journey for journey in journeys if journey.route.decode]
        return UsageRecord(
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


class Books:
    """Opens accounts, and writes them into the day book.

    Args:
        keep: takes each record, at once, and has the day book forget it when the ledger has it; without, there is no
            ledger.
        prices: of tokens.
        quotas: what tenants may use.
        charge: takes tenant, model and tokens that count against a quota, once for each account.
        daybook: outlives this gateway, if it is a file.
        now: Unix seconds.

    Attributes:
        log: takes a line of the invocation log for each account, where one is kept.
    """

    log: Callable[[Line], None] | None = None

    def __init__(
        self,
        keep: Callable[[UsageRecord], None] | None = None,
        prices: PriceList | None = None,
        quotas: Quotas | None = None,
        charge: Callable[[TenantId, str, int], None] = charge_nobody,
        daybook: Daybook | None = None,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._keep = keep
        self.prices = prices or PriceList()
        self._quotas = quotas or Quotas((), MonotonicClock())
        self._charge = charge
        self._daybook = daybook or Daybook()
        self._now = now
        self._open: dict[str, Account] = {}
        self._unsettled: deque[tuple[Hold, UsageRecord]] = deque()
        """Closed accounts that could not be written; they are tried again."""

    async def has_reserved(self, tenant: TenantId, model: str, most: int) -> bool:
        """Whether the tenant has a share of its own of the model, and so much of it left.

        Raises:
            CapacityError: accounts cannot be read now.
        """
        if not self._quotas.rule(tenant, model).reserved_tokens_per_min:
            return False
        return await self._daybook.write(lambda page: self._quotas.has_reserved(page, tenant, model, most))

    async def open(self, order: Order) -> Account:
        """Begin a call's account.

        Raises:
            Throttled: the tenant has used up its quota.
            CapacityError: accounts cannot be written now.
        """
        account = Account(order, int(self._now() * 1000), self)

        def begin(page: Page) -> Hold:
            hold = self._quotas.reserve(page, order.tenant, order.model, order.tier, order.most)
            page.open(hold, account.record(Status.FAILED, Tokens(), ()))
            return hold

        account.hold(await self._daybook.write(begin))
        self._open[order.request_id] = account
        return account

    async def settle(self, hold: Hold, record: UsageRecord) -> None:
        """An account was closed. What cannot be written now is tried again with every :meth:`note`."""
        self._open.pop(record.request_id, None)
        try:
            await self._daybook.write(lambda page: self._settle_on(page, hold, record))
        except (CapacityError, asyncio.CancelledError) as error:
            self._unsettled.append((hold, record))
            if isinstance(error, asyncio.CancelledError):
                raise
            log.error("request %s is settled later: %s", record.request_id, error)
            return
        self._charge(hold.tenant, hold.model, record.tokens.charged)
        if self._keep is not None:
            self._keep(record)

    async def settle_rest(self) -> None:
        """Try again what could not be settled."""
        for _ in range(len(self._unsettled)):
            await self.settle(*self._unsettled.popleft())

    async def note(self) -> None:
        """Write down what open accounts have used since the last time: that much is charged if the gateway dies.

        A few of them at a time, so that others may have the event loop in between.
        """
        await self.settle_rest()
        accounts = iter(list(self._open.values()))
        while some := list(islice(accounts, _NOTED_AT_ONCE)):
            news = [record for record in (account.news() for account in some) if record is not None]
            try:
                if news:
                    await self._daybook.write(partial(_note, news))
            except CapacityError as error:
                log.error("what running requests have used is not written down: %s", error)
            await asyncio.sleep(0)

    async def inherit(self) -> None:
        """Settle and keep what gateways have left that were killed, or could not reach the ledger."""
        taken = 0
        try:
            async for records in self._daybook.inherit(self._settle_on):
                taken += len(records)
                if self._keep is not None:
                    for record in records:
                        self._keep(record)
                await asyncio.sleep(0)
        except CapacityError as error:
            log.error("what other gateways have left waits: %s", error)
        if taken:
            log.info("took over %d usage records that other gateways had left", taken)

    async def look_around(self) -> None:
        """Inherit, if another gateway is missing."""
        if self._daybook.has_inheritance:
            await self.inherit()

    def _settle_on(self, page: Page, hold: Hold, record: UsageRecord) -> None:
        self._quotas.settle(page, hold, record.tokens.charged)
        if self._keep is None:
            page.forget(record.request_id)
        else:
            page.settle(record)


def _note(records: Sequence[UsageRecord], page: Page) -> None:
    page.note(records)


def _route(kinds: Sequence[RouteKind]) -> str:
    """The mode of all answers: ``disaggregated`` where one of them was."""
    if not kinds:
        return ""
    return (RouteKind.DISAGGREGATED if RouteKind.DISAGGREGATED in kinds else RouteKind.AGGREGATED).value
