"""Where a gateway's accounts are kept: books over a ledger that is written beside the event loop."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path

from twinfer.core.clock import MonotonicClock
from twinfer.core.config import Config
from twinfer.core.errors import TwinferError
from twinfer.gateway.batches import BatchWriter, Pace, writing
from twinfer.gateway.books import Books, ignore
from twinfer.gateway.invocation_log import InvocationLog, Line
from twinfer.gateway.metering import Meter
from twinfer.gateway.quotas import Quotas
from twinfer.identity.place import place_of
from twinfer.usage.prices import read_prices
from twinfer.usage.record import UsageRecord
from twinfer.usage.spool import Spool

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
    """Books as the configuration has them; on leaving, what was not written yet is, or is spooled.

    Raises:
        ConfigError: the price file cannot be read.
    """
    meter = Meter()
    keep: Callable[[UsageRecord], None] = ignore
    async with contextlib.AsyncExitStack() as stack:
        if config.usage.enabled:
            writer = await stack.enter_async_context(_ledger(config, meter))
            keep = writer.add
        quotas = Quotas(config.quota, MonotonicClock())
        books = Books(keep, read_prices(config.usage.prices), quotas, meter.accounts.charge)
        if config.invocation_log.file:
            pace = Pace(config.usage.flush_s, waiting=config.usage.max_waiting)
            write = InvocationLog(config).write
            lines = BatchWriter[Line]("lines of the invocation log", write, pace, meter.accounts.invocation_lines)
            await stack.enter_async_context(writing(lines, LAST_TRIES_S))
            books.log = lines.add
        yield Office(books, meter)


@contextlib.asynccontextmanager
async def _ledger(config: Config, meter: Meter) -> AsyncIterator[BatchWriter[UsageRecord]]:
    """A writer of the ledger, which first has what earlier gateways left."""
    from twinfer.usage.ledger import Ledger

    place = place_of(config.identity)
    ledger = Ledger(place)
    spool = Spool(Path(config.usage.spool) if config.usage.spool else place.key_file.parent)
    pace = Pace(config.usage.flush_s, waiting=config.usage.max_waiting)
    writer = BatchWriter[UsageRecord]("usage records", ledger.write, pace, meter.accounts.usage)
    try:
        if found := await asyncio.to_thread(spool.hand_over, ledger.write):
            log.info("wrote %d usage records that an earlier gateway had left", found)
    except TwinferError as error:
        log.error("usage records of an earlier gateway cannot be written yet: %s", error)
    try:
        async with writing(writer, LAST_TRIES_S):
            yield writer
    finally:
        _keep_rest(writer, spool)


def _keep_rest(writer: BatchWriter[UsageRecord], spool: Spool) -> None:
    """Records that could not be written wait on disk for the next gateway."""
    rest = writer.waiting
    if not rest:
        return
    try:
        log.error("%d usage records could not be written and wait in %s", len(rest), spool.keep(rest))
    except TwinferError as error:
        log.error("%d usage records are lost: %s", len(rest), error)
