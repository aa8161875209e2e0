"""The day book: everything of a transaction or nothing, and whoever comes next inherits once."""

import asyncio
import contextlib
import multiprocessing
import os
import signal
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.usage.records import a_record
from twinfer.core.errors import CapacityError, ConfigError, Throttled
from twinfer.core.ids import TenantId
from twinfer.usage.daybook import Daybook, Hold, Page, Standing
from twinfer.usage.record import UsageRecord

ACME = TenantId("acme")
HOLD = Hold(ACME, "m", 7)


@pytest.fixture
def book(tmp_path: Path) -> Iterator[Daybook]:
    """One in a file."""
    daybook = Daybook(tmp_path / "deep" / "daybook")
    yield daybook
    daybook.close()


def inherit(daybook: Daybook) -> tuple[list[UsageRecord], list[tuple[Hold, UsageRecord]]]:
    """All that it takes over, and what of that was open."""
    left = list[tuple[Hold, UsageRecord]]()

    def settle(page: Page, hold: Hold, record: UsageRecord) -> None:
        page.settle(record)
        left.append((hold, record))

    async def take() -> list[UsageRecord]:
        return [record async for some in daybook.inherit(settle) for record in some]

    return asyncio.run(take()), left


def abandon(path: Path) -> None:
    """Be a gateway that dies with one open entry, which it has noted, and one that is settled."""
    daybook = Daybook(path)
    with daybook.page() as page:
        page.open(HOLD, a_record(0))
        page.open(HOLD, a_record(1))
    with daybook.page() as page:
        page.note([a_record(1, cost_nano=5)])
        page.settle(a_record(0, cost_nano=3))
    os.kill(os.getpid(), signal.SIGKILL)


def test_the_next_one_inherits_once(book: Daybook, tmp_path: Path) -> None:
    """What is open is as it was last noted; who lives keeps his own."""
    path = tmp_path / "deep" / "daybook"
    process = multiprocessing.get_context("spawn").Process(target=abandon, args=(path,))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    other = Daybook(path)
    with other.page() as page:
        page.open(HOLD, a_record(2))
    records, left = inherit(book)
    assert sorted(records, key=lambda record: record.request_id) == [a_record(0, cost_nano=3), a_record(1, cost_nano=5)]
    assert left == [(HOLD, a_record(1, cost_nano=5))]
    assert inherit(other) == ([], [])
    assert inherit(book) == ([], [])
    book.forget([record.request_id for record in records])
    assert book.count() == 1
    other.close()
    assert inherit(book) == ([a_record(2)], [(HOLD, a_record(2))])


def test_an_error_keeps_nothing(book: Daybook) -> None:
    """Neither standing nor entry, and the next transaction is not disturbed."""

    def refuse() -> None:
        with book.page() as page:
            page.stand(ACME, "m", Standing(held=1))
            page.open(HOLD, a_record())
            raise Throttled("no", 1.0)

    with pytest.raises(Throttled):
        refuse()
    assert (book.standings(), book.count()) == ({}, 0)
    standing = Standing(1.0, 2.5, 0.0, 12.5, 7, 11)
    with book.page() as page:
        page.stand(ACME, "m", standing)
    assert book.standings() == {(ACME, "m"): standing}


def test_a_settled_entry_is_not_noted_again(book: Daybook, tmp_path: Path) -> None:
    """A note that comes late changes nothing."""
    with book.page() as page:
        page.open(HOLD, a_record(0))
        page.settle(a_record(0, cost_nano=3))
        page.note([a_record(0, cost_nano=2)])
    book.close()
    with contextlib.closing(Daybook(tmp_path / "deep" / "daybook")) as other:
        assert inherit(other) == ([a_record(0, cost_nano=3)], [])


def test_trouble_is_one_sentence(tmp_path: Path) -> None:
    """A file that is none of ours, a place that cannot be, and one that another keeps for itself."""
    strange = tmp_path / "strange"
    strange.write_text("strange" * 1000)
    with pytest.raises(ConfigError, match=r"the day book .*strange cannot be used: .*; move it away"):
        Daybook(strange)
    with pytest.raises(ConfigError, match=r"the day book .* cannot be made: .*; set usage\.spool"):
        Daybook(strange / "below")
    busy = Daybook(tmp_path / "busy", patience_s=0.01)
    keeper = keep_for_itself(tmp_path / "busy")
    with pytest.raises(CapacityError, match=r"The accounts in .*busy cannot be written .*try again"), busy.page():
        pass
    keeper.close()
    with busy.page() as page:
        page.open(HOLD, a_record())
    assert busy.count() == 1
    busy.close()


def keep_for_itself(path: Path) -> sqlite3.Connection:
    """Another process's transaction, which lasts until it is closed."""
    keeper = sqlite3.connect(path)
    keeper.execute("BEGIN IMMEDIATE")
    return keeper


def test_an_event_loop_goes_on_while_others_write(book: Daybook, tmp_path: Path) -> None:
    """And has its turn once they have ended theirs, however long that takes."""
    keeper = keep_for_itself(tmp_path / "deep" / "daybook")

    async def write() -> int:
        writing = asyncio.create_task(book.write(lambda page: page.open(HOLD, a_record())))
        for _ in range(3):
            await asyncio.sleep(0.001)
            assert not writing.done()
        keeper.close()
        await asyncio.wait_for(writing, 5)
        return book.count()

    assert asyncio.run(write()) == 1


def test_a_thread_of_the_same_process_is_waited_for_as_well(book: Daybook) -> None:
    """Which writes to the ledger meanwhile, say."""

    async def write() -> None:
        with book.page() as page:
            writing = asyncio.create_task(book.write(lambda page: page.settle(a_record(cost_nano=3))))
            await asyncio.sleep(0.001)
            page.open(HOLD, a_record())
        await asyncio.wait_for(writing, 5)

    asyncio.run(write())
    book.close()


def test_patience_ends(tmp_path: Path) -> None:
    """A loop is told, too, when somebody keeps the file for himself."""
    with contextlib.closing(Daybook(tmp_path / "busy", patience_s=0.01)) as busy:
        keeper = keep_for_itself(tmp_path / "busy")
        with pytest.raises(CapacityError, match="try again"):
            asyncio.run(busy.write(lambda page: page.forget("any")))
        keeper.close()


def test_who_dies_while_inheriting_is_inherited_from(tmp_path: Path) -> None:
    """What it has not taken over is missed on; and no transaction takes more than some entries."""
    path = tmp_path / "daybook"
    dead, heir, other = Daybook(path), Daybook(path), Daybook(path)
    with dead.page() as page:
        for number in range(100):
            page.open(HOLD, a_record(number))
    dead.close()  # in good order, and something is left
    assert heir.has_inheritance

    async def begin() -> int:
        taking = heir.inherit(lambda page, hold, record: page.settle(record))
        try:
            return len(await anext(taking))
        finally:
            await taking.aclose()

    first = asyncio.run(begin())
    assert 0 < first < 100
    assert other.has_inheritance
    assert len(inherit(other)[0]) == 100 - first
    assert not other.has_inheritance
    heir.close()
    assert other.has_inheritance
    records, left = inherit(other)
    assert (len(records), left) == (first, [])
    other.close()


def test_who_leaves_nothing_is_not_missed(book: Daybook, tmp_path: Path) -> None:
    """Its own settled entries went to the ledger."""
    other = Daybook(tmp_path / "deep" / "daybook")
    with other.page() as page:
        page.open(HOLD, a_record())
        page.forget(a_record().request_id)
    other.close()
    assert not book.has_inheritance
