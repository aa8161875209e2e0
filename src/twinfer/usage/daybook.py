"""The day book: what is promised and what was used, written down by the gateways of one machine before anybody is told.

It outlives a gateway that is killed at any moment, but not everything a machine's loss of power. A request's entry goes
through:

1. *open*, in one transaction with what it reserves of its tenant's quota, before a worker hears of it;
2. *noted*, any number of times: what it has used so far;
3. *settled*, in one transaction with the quota, before the last byte of its answer;
4. *forgotten*, once the ledger has its record.

Entries of a gateway that lives no more are inherited by another: open ones are settled as they were last noted.
"""

import contextlib
import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import msgspec

from twinfer.core.errors import CapacityError, ConfigError
from twinfer.core.ids import TenantId
from twinfer.usage.presence import Presence
from twinfer.usage.record import UsageRecord

_PATIENCE_S = 2.0
"""For the other gateways' transactions, each of which takes microseconds."""
_SCHEMA = """
CREATE TABLE IF NOT EXISTS standing (
    tenant TEXT, model TEXT, requests REAL, tokens REAL, reserved REAL, at_s REAL, held INTEGER, charged INTEGER,
    PRIMARY KEY (tenant, model)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS entry (
    request_id TEXT PRIMARY KEY, owner TEXT NOT NULL, hold BLOB, record BLOB NOT NULL) WITHOUT ROWID;
"""
_PRAGMAS = ("journal_mode = WAL", "synchronous = NORMAL", "wal_autocheckpoint = 4000")
_OWN_MEMORY = "memory"

_encode = msgspec.msgpack.Encoder().encode
_read_record = msgspec.msgpack.Decoder(UsageRecord).decode


class Standing(msgspec.Struct, frozen=True):
    """How a tenant stands with a model.

    Args:
        requests, tokens, reserved: what its buckets lack at ``at_s`` of being full: requests, tokens, and tokens of
            the reserved tier.
        at_s: on the machine's monotonic clock.
        held: tokens that open entries have reserved.
        charged: tokens that settled entries have used, ever.
    """

    requests: float = 0.0
    tokens: float = 0.0
    reserved: float = 0.0
    at_s: float = 0.0
    held: int = 0
    charged: int = 0


class Hold(msgspec.Struct, frozen=True):
    """What a request has reserved: tokens, of the reserved tier's share or of the others'."""

    tenant: TenantId
    model: str
    amount: int
    reserved: bool = False


_read_hold = msgspec.msgpack.Decoder(Hold).decode


class Page:
    """The day book within a transaction."""

    def __init__(self, connection: sqlite3.Connection, owner: str) -> None:
        self._connection = connection
        self._owner = owner

    def standing(self, tenant: TenantId, model: str) -> Standing:
        """How they stand."""
        query = "SELECT requests, tokens, reserved, at_s, held, charged FROM standing WHERE tenant = ? AND model = ?"
        row = self._connection.execute(query, (tenant, model)).fetchone()
        return Standing() if row is None else Standing(*row)

    def stand(self, tenant: TenantId, model: str, standing: Standing) -> None:
        """They stand so from now on."""
        values = (tenant, model, *msgspec.structs.astuple(standing))
        self._connection.execute("INSERT OR REPLACE INTO standing VALUES (?, ?, ?, ?, ?, ?, ?, ?)", values)

    def open(self, hold: Hold, record: UsageRecord) -> None:
        """A request begins; the record is what becomes of it if nothing more is ever heard."""
        values = (record.request_id, self._owner, _encode(hold), _encode(record))
        self._connection.execute("INSERT INTO entry VALUES (?, ?, ?, ?)", values)

    def settle(self, record: UsageRecord) -> None:
        """It has ended so."""
        values = (_encode(record), record.request_id)
        self._connection.execute("UPDATE entry SET hold = NULL, record = ? WHERE request_id = ?", values)

    def forget(self, request_id: str) -> None:
        """It has ended, and nothing more is to be known of it."""
        self._connection.execute("DELETE FROM entry WHERE request_id = ?", (request_id,))

    def inherit(self, living: set[str]) -> list[tuple[Hold | None, UsageRecord]]:
        """Take over the entries of all owners but these; without a hold where one was settled."""
        owners = [owner for (owner,) in self._connection.execute("SELECT DISTINCT owner FROM entry")]
        found = []
        for owner in set(owners) - living:
            rows = self._connection.execute("SELECT hold, record FROM entry WHERE owner = ?", (owner,)).fetchall()
            found += [(hold and _read_hold(hold), _read_record(record)) for hold, record in rows]
            self._connection.execute("UPDATE entry SET owner = ? WHERE owner = ?", (self._owner, owner))
        return found


class Daybook:
    """One file for all gateways of a machine that share a database; without a path only this process's, in memory.

    Args:
        patience_s: how long is waited for others' transactions, in the event loop.

    Raises:
        ConfigError: the file cannot be used.
    """

    def __init__(self, path: Path | None = None, patience_s: float = _PATIENCE_S) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._connection = _connect(path, patience_s)
        self._presence = None if path is None else Presence(path)
        self._owner = _OWN_MEMORY if self._presence is None else self._presence.name

    @contextlib.contextmanager
    def page(self) -> Iterator[Page]:
        """A transaction: all that is done with the page is kept, or nothing if an error leaves the context.

        Raises:
            CapacityError: the file cannot be written to.
        """
        with self._lock:
            try:
                self._connection.execute("BEGIN IMMEDIATE")
                try:
                    yield Page(self._connection, self._owner)
                    self._connection.execute("COMMIT")
                finally:
                    if self._connection.in_transaction:
                        self._connection.execute("ROLLBACK")
            except sqlite3.Error as error:
                message = f"The accounts in {self._path} cannot be written ({error}); see to its disk and try again."
                raise CapacityError(message) from error

    def note(self, records: Sequence[UsageRecord]) -> None:
        """What open entries have used so far."""
        values = [(_encode(record), record.request_id) for record in records]
        self._many("UPDATE entry SET record = ? WHERE request_id = ? AND hold IS NOT NULL", values)

    def forget(self, request_ids: Sequence[str]) -> None:
        """They are elsewhere now."""
        self._many("DELETE FROM entry WHERE request_id = ?", [(request_id,) for request_id in request_ids])

    def inherit(self, settle: Callable[[Page, Hold, UsageRecord], None]) -> list[UsageRecord]:
        """Take over from gateways that live no more, once, whoever else tries; returns records for the ledger.

        Args:
            settle: ends an open entry as it was last noted.
        """
        with self.page() as page:  # who has an entry by now was there before: nobody comes in between
            living = {self._owner} if self._presence is None else self._presence.alive()
            found = page.inherit(living)
            for hold, record in found:
                if hold is not None:
                    settle(page, hold, record)
        return [record for _, record in found]

    @property
    def has_inheritance(self) -> bool:
        """Whether somebody died, and what he left is to be inherited."""
        return self._presence is not None and self._presence.misses()

    def standings(self) -> dict[tuple[TenantId, str], Standing]:
        """How everybody stands."""
        with self.page():
            rows = self._connection.execute("SELECT * FROM standing").fetchall()
        return {(TenantId(tenant), model): Standing(*rest) for tenant, model, *rest in rows}

    def count(self) -> int:
        """Entries that are not forgotten."""
        with self.page():
            number: int = self._connection.execute("SELECT count(*) FROM entry").fetchone()[0]
        return number

    def close(self) -> None:
        """Leave; what is in it waits for the next one."""
        self._connection.close()
        if self._presence is not None:
            self._presence.close()

    def _many(self, statement: str, values: Sequence[tuple[object, ...]]) -> None:
        if values:
            with self.page():
                self._connection.executemany(statement, values)


def _connect(path: Path | None, patience_s: float) -> sqlite3.Connection:
    try:
        if path is not None:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            path.touch(mode=0o600)
    except OSError as error:
        raise ConfigError(f"the day book {path} cannot be made: {error.strerror}; set usage.spool") from error
    connection = sqlite3.connect(path or ":memory:", timeout=patience_s, isolation_level=None, check_same_thread=False)
    try:
        for pragma in _PRAGMAS:
            connection.execute(f"PRAGMA {pragma}")
        connection.executescript(_SCHEMA)
    except sqlite3.Error as error:
        connection.close()
        raise ConfigError(f"the day book {path} cannot be used: {error}; move it away") from error
    return connection
