"""The ledger, on SQLite and on a real PostgreSQL."""

import threading

import pytest
import sqlalchemy

from tests.usage.records import NOON_MS, a_record
from twinfer.core.errors import ConfigError
from twinfer.core.ids import TenantId
from twinfer.identity.credential import issue
from twinfer.identity.place import Place
from twinfer.identity.policy import Policy
from twinfer.identity.schema import LATEST, migrate, version_of
from twinfer.identity.store import KeyRecord, KeyStore
from twinfer.usage.ledger import Filter, Ledger, total
from twinfer.usage.record import Status, Tokens

ALL = Filter()


def test_a_record_comes_back_as_it_was_written(place: Place) -> None:
    """Every field, numbers beyond 32 bits among them."""
    ledger = Ledger(place)
    assert ledger.write([a_record()]) == 1
    (row,) = ledger.rows(ALL)
    assert row == {
        "request_id": "request-0",
        "at_ms": NOON_MS,
        "tenant": "acme",
        "key_id": "AKIDEXAMPLE",
        "model": "a.model-v1:0",
        "profile": "",
        "operation": "Converse",
        "status": "answered",
        "tier": "default",
        "latency": "standard",
        "route": "disaggregated",
        "input_tokens": 10,
        "cache_read_tokens": 3,
        "cache_write_tokens": 2,
        "output_tokens": 5,
        "bytes_moved": 5_000_000_000,
        "prefill_s": 0.5,
        "decode_s": 0.25,
        "kv_byte_s": 2.0**30,
        "recoveries": 1,
        "cost_nano": 7,
    }


def test_a_request_is_written_once(place: Place) -> None:
    """Whole batches may come again, in part or with others; the first record of an id stays."""
    ledger = Ledger(place)
    assert ledger.write([a_record(0), a_record(1)]) == 2
    assert ledger.write([a_record(1, tenant="thief"), a_record(2), a_record(2)]) == 1
    assert [row["tenant"] for row in ledger.rows(ALL)] == ["acme"] * 3


def test_writers_side_by_side(place: Place) -> None:
    """Gateways that write the same records at the same time, into an empty database."""
    barrier, failures = threading.Barrier(4), list[Exception]()

    def write() -> None:
        ledger = Ledger(place)
        barrier.wait()
        try:
            for start in range(0, 40, 10):
                ledger.write([a_record(number) for number in range(start, start + 10)])
        except ConfigError as error:
            failures.append(error)

    threads = [threading.Thread(target=write) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert total(list(Ledger(place).rows(ALL))) == Tokens(400, 120, 80, 200)


def test_sums_by_tenant_and_model(place: Place) -> None:
    """In order, with those that were not answered apart; what has no price has no cost."""
    ledger = Ledger(place)
    ledger.write(
        [
            a_record(0),
            a_record(1),
            a_record(2, tenant="beta", status=Status.CANCELLED, cost_nano=None),
            a_record(3, model="b.model", status=Status.FAILED),
        ]
    )
    rows = ledger.sums(["tenant", "model"], ALL)
    assert [(row["tenant"], row["model"], row["requests"], row["not_answered"]) for row in rows] == [
        ("acme", "a.model-v1:0", 2, 0),
        ("acme", "b.model", 1, 1),
        ("beta", "a.model-v1:0", 1, 1),
    ]
    assert [row["cost_nano"] for row in rows] == [14, 7, None]
    assert total(rows[:1]) == Tokens(20, 6, 4, 10)
    assert [type(rows[0][name]) for name in ("bytes_moved", "input_tokens")] == [int, int]
    (whole,) = ledger.sums([], ALL)
    assert total([whole]) == total(rows) == total(list(ledger.rows(ALL)))


def test_time_and_tenant_narrow_it_down(place: Place) -> None:
    """From a moment on, and before another; and by day and hour, which are UTC's."""
    hour = 3_600_000
    ledger = Ledger(place)
    ledger.write([a_record(number, at_ms=NOON_MS + number * hour) for number in range(24)])
    assert [row["request_id"] for row in ledger.rows(Filter(NOON_MS + hour, NOON_MS + 3 * hour))] == [
        "request-1",
        "request-2",
    ]
    by_day = ledger.sums(["day"], ALL)
    assert [(row["day"] - NOON_MS, row["requests"]) for row in by_day] == [(-12 * hour, 12), (12 * hour, 12)]
    assert len(ledger.sums(["hour"], ALL)) == 24
    assert ledger.sums([], Filter(tenant="beta")) == []
    with pytest.raises(ConfigError, match="usage cannot be split by 'colour'"):
        ledger.sums(["colour"], ALL)


def test_no_database_is_an_empty_ledger(place: Place) -> None:
    """Reading makes none, and a report of nothing is no error."""
    assert list(Ledger(place).rows(ALL)) == []
    assert Ledger(place).sums(["tenant"], ALL) == []
    assert place.file is None or not place.file.exists()


@pytest.mark.parametrize("version", [0, 1, 2])
def test_an_older_database_gets_the_ledger(place: Place, version: int) -> None:
    """From every earlier schema."""
    engine = sqlalchemy.create_engine(place.url)
    with engine.begin() as connection:
        migrate(connection, version)
    Ledger(place).write([a_record()])
    with engine.begin() as connection:
        assert version_of(connection) == LATEST
    engine.dispose()
    assert len(list(Ledger(place).rows(ALL))) == 1


def test_keys_and_ledger_share_a_database(place: Place) -> None:
    """A ledger without keys does not shut the door, and a key made afterwards does."""
    Ledger(place).write([a_record()])
    store = KeyStore(place)
    state = store.read()
    assert state is not None
    assert not state.any_ever
    issued = issue()
    store.create(KeyRecord(issued.key_id, TenantId("acme"), Policy.parse([]), 0.0), issued)
    state = store.read()
    assert state is not None
    assert state.any_ever
    assert len(list(Ledger(place).rows(ALL))) == 1
