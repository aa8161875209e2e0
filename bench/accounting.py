"""What keeping account of a request costs: reading it, its quota, its record, and a line of the invocation log.

The event loop pays for what is done at once; batches are written beside it, by a thread of the same process.
"""

import itertools
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import msgspec

from bench.gateway_servers import ROUTE, UNBOUNDED, accounted
from twinfer.core.clock import MonotonicClock
from twinfer.core.ids import TenantId
from twinfer.gateway.base import Journey
from twinfer.gateway.books import Books, Order
from twinfer.gateway.dialects.converse_request import read_converse
from twinfer.gateway.invocation_log import InvocationLog, Line
from twinfer.gateway.metering import Meter
from twinfer.gateway.quotas import Quotas
from twinfer.identity.place import place_of
from twinfer.usage.daybook import Daybook
from twinfer.usage.ledger import Ledger
from twinfer.usage.record import Status, Tokens, UsageRecord

BATCH = 1000
"""Records, as many as a gateway writes at once at most."""
JOURNEY = Journey(ROUTE, 0.0, 0.0, 0.0, 1.0, 0.0, 8.0, 0, 0)
USED = Tokens(input=30, output=8)

Case = Callable[[], object]


def at_once(body: bytes) -> Mapping[str, Case]:
    """What a request costs the event loop besides knowing who asks."""
    numbers, meter = itertools.count(), Meter()

    def order() -> Order:
        return Order(f"{next(numbers):036}", TenantId("bench"), "AKIABENCH", "twinfer.bench-v1:0", "Converse", 60)

    quotas, daybook = Quotas(UNBOUNDED, MonotonicClock()), Daybook()
    books = Books(quotas=quotas, charge=meter.accounts.charge)
    once = order()

    def quota() -> None:
        with daybook.page() as page:
            quotas.settle(page, quotas.reserve(page, once.tenant, once.model, once.tier, once.most), USED.charged)

    return {
        "body read and checked": lambda: read_converse(body),
        "quota reserved and settled, in one transaction": quota,
        "account opened and closed: quota, series, record": lambda: answered(books, order()),
    }


def answered(books: Books, order: Order) -> None:
    """One call's account, from open to closed, which nobody else's transaction delays."""

    async def answer() -> None:
        account = await books.open(order)
        account.watch(lambda: (USED, (JOURNEY,)))
        await account.close(Status.ANSWERED)

    with suppress(StopIteration):
        answer().send(None)


def a_record() -> UsageRecord:
    """Of some request."""
    kept: list[UsageRecord] = []
    order = Order("", TenantId("bench"), "AKIABENCH", "twinfer.bench-v1:0", "Converse", 60)
    answered(Books(kept.append), order)
    return kept[0]


@contextmanager
def beside() -> Iterator[Mapping[str, Case]]:
    """What writing a batch costs the writer's thread, with SQLite and a file in a temporary directory."""
    numbers, record = itertools.count(), a_record()

    def batch() -> list[UsageRecord]:
        return [msgspec.structs.replace(record, request_id=f"{next(numbers):036}") for _ in range(BATCH)]

    with tempfile.TemporaryDirectory() as directory:
        config = accounted(Path(directory))
        ledger, log = Ledger(place_of(config.identity)), InvocationLog(config)
        yield {
            "ledger's record, in a batch": lambda: ledger.write(batch()),
            "invocation log's line, in a batch": lambda: log.write([Line(each) for each in batch()]),
        }


def per_item(cases: Mapping[str, Case], rounds: int) -> dict[str, list[float]]:
    """Microseconds of CPU time that each item of a batch takes, in each round but a first one."""
    found: dict[str, list[float]] = {name: [] for name in cases}
    for _ in range(rounds + 1):
        for name, case in cases.items():
            began = time.process_time()
            case()
            found[name].append((time.process_time() - began) / BATCH * 1e6)
    return {name: times[1:] for name, times in found.items()}
