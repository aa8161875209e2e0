"""Where a gateway's accounts are kept: books over a ledger that is written beside the event loop."""

import asyncio
import contextlib
import hashlib
import logging
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from twinfer.core.clock import MonotonicClock
from twinfer.core.config import Config
from twinfer.gateway.batches import BatchWriter, Pace, writing
from twinfer.gateway.books import Books
from twinfer.gateway.invocation_log import InvocationLog, Line
from twinfer.gateway.metering import Meter
from twinfer.gateway.quotas import Quotas
from twinfer.identity.place import place_of
from twinfer.usage.daybook import Daybook
from twinfer.usage.prices import read_prices
from twinfer.usage.record import UsageRecord

log = logging.getLogger("twinfer.gateway")
LAST_TRIES_S = 2.0
"""For records that are left when the gateway ends."""


@dataclass(frozen=True, slots=True)
class Office:
    """The books, and the series that go with them."""

    books: Books
    meter: Meter

    @classmethod
    def of(cls, config: Config) -> "Office":
        """Books with quotas, and without a ledger."""
        meter = Meter()
        return cls(Books(quotas=Quotas(config.quota, MonotonicClock()), charge=meter.accounts.charge), meter)


@contextlib.asynccontextmanager
async def open_office(config: Config) -> AsyncIterator[Office]:
    """Books as the configuration has them; on leaving, what was not written yet is, or waits in the day book.

    Raises:
        ConfigError: the price file cannot be read, or the day book not be used.
    """
    meter = Meter()
    async with contextlib.AsyncExitStack() as stack:
        daybook = stack.enter_context(contextlib.closing(_daybook(config)))
        keep = (await stack.enter_async_context(_ledger(config, meter, daybook))).add if config.usage.enabled else None
        quotas = Quotas(config.quota, MonotonicClock())
        books = Books(keep, read_prices(config.usage.prices), quotas, meter.accounts.charge, daybook)
        if config.invocation_log.file:
            pace = Pace(config.usage.flush_s, waiting=config.usage.max_waiting)
            write = InvocationLog(config).write
            lines = BatchWriter[Line]("lines of the invocation log", write, pace, meter.accounts.invocation_lines)
            await stack.enter_async_context(writing(lines, LAST_TRIES_S))
            books.log = lines.add
        await books.inherit()
        await stack.enter_async_context(_noting(books, config.usage.flush_s))
        yield Office(books, meter)


def daybook_path(config: Config) -> Path:
    """The file that all gateways of this machine share which have the same database."""
    from twinfer.identity.database import shown_url

    place = place_of(config.identity)
    directory = Path(config.usage.spool) if config.usage.spool else place.key_file.parent
    return directory / f"usage-{hashlib.sha256(shown_url(place.url).encode()).hexdigest()[:8]}.daybook"


def _daybook(config: Config) -> Daybook:
    """In memory where nothing has to outlive this gateway, or hold for others."""
    return Daybook(daybook_path(config) if config.usage.enabled or config.quota else None)


@contextlib.asynccontextmanager
async def _ledger(config: Config, meter: Meter, daybook: Daybook) -> AsyncIterator[BatchWriter[UsageRecord]]:
    """A writer of the ledger, after which the day book forgets."""
    from twinfer.usage.ledger import Ledger

    ledger = Ledger(place_of(config.identity))

    def write(records: Sequence[UsageRecord]) -> None:
        ledger.write(records)
        daybook.forget([record.request_id for record in records])

    pace = Pace(config.usage.flush_s, waiting=config.usage.max_waiting)
    writer = BatchWriter[UsageRecord]("usage records", write, pace, meter.accounts.usage)
    try:
        async with writing(writer, LAST_TRIES_S):
            yield writer
    finally:
        if rest := writer.waiting:
            log.error("%d usage records could not be written and wait for the next gateway", len(rest))


@contextlib.asynccontextmanager
async def _noting(books: Books, period_s: float) -> AsyncIterator[None]:
    """Write down again and again what running requests have used, and see to what gateways leave that die meanwhile."""

    async def note() -> None:
        while True:
            await asyncio.sleep(period_s)
            await books.note()
            await books.look_around()

    noting = asyncio.create_task(note())
    try:
        yield
    finally:
        noting.cancel()
        await asyncio.wait([noting])
        await books.settle_rest()
