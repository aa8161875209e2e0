"""The day book: everything of a transaction or nothing, and whoever comes next inherits once."""

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

    return daybook.inherit(settle), left


def abandon(path: Path) -> None:
    """Be a gateway that dies with one open entry, which it has noted, and one that is settled."""
    daybook = Daybook(path)
    with daybook.page() as page:
        page.open(HOLD, a_record(0))
        page.open(HOLD, a_record(1))
    daybook.note([a_record(1, cost_nano=5)])
    with daybook.page() as page:
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
    book.note([a_record(0, cost_nano=2)])
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
    busy, keeper = Daybook(tmp_path / "busy", patience_s=0.01), sqlite3.connect(tmp_path / "busy")
    keeper.execute("BEGIN IMMEDIATE")
    with pytest.raises(CapacityError, match=r"The accounts in .*busy cannot be written .*try again"), busy.page():
        pass
    keeper.close()
    with busy.page() as page:
        page.open(HOLD, a_record())
    assert busy.count() == 1
    busy.close()
