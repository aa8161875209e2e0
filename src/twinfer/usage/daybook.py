"""The day book: what is promised and what was used, written down by the gateways of one machine before anybody is told.

It outlives a gateway that is killed at any moment, but not everything a machine's loss of power. A request's entry goes
through:

1. *open*, in one transaction with what it reserves of its tenant's quota, before a worker hears of it;
2. *noted*, any number of times: what it has used so far;
3. *settled*, in one transaction with the quota, before the last byte of its answer;
4. *forgotten*, once the ledger has its record.

Entries of a gateway that lives no more are inherited by another: open ones are settled as they were last noted.

One transaction goes on at a time, on the whole machine. Event loops do other things while they wait for another's
(:meth:`Daybook.write`).
"""

import asyncio
import contextlib
import sqlite3
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TypeVar

import msgspec

from twinfer.core.errors import CapacityError, ConfigError
from twinfer.core.ids import TenantId
from twinfer.usage.presence import Presence
from twinfer.usage.record import UsageRecord

_PATIENCE_S = 2.0
"""For the others' transactions, most of which take microseconds."""
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.001, 0.016
_INHERITED_AT_ONCE = 64
"""Some milliseconds, for which all gateways wait."""
_SCHEMA = """
CREATE TABLE IF NOT EXISTS standing (
    tenant TEXT, model TEXT, requests REAL, tokens REAL, reserved REAL, at_s REAL, held INTEGER, charged INTEGER,
    PRIMARY KEY (tenant, model)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS entry (
    request_id TEXT PRIMARY KEY, owner TEXT NOT NULL, hold BLOB, record BLOB NOT NULL) WITHOUT ROWID;
"""
_PRAGMAS = ("journal_mode = WAL", "synchronous = NORMAL", "wal_autocheckpoint = 4000")
_OWN_MEMORY = "memory"

Result = TypeVar("Result")

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

    def note(self, records: Sequence[UsageRecord]) -> None:
        """What open entries have used so far."""
        values = [(_encode(record), record.request_id) for record in records]
        self._connection.executemany("UPDATE entry SET record = ? WHERE request_id = ? AND hold IS NOT NULL", values)

    @property
    def has_own(self) -> bool:
        """Whether there are entries of this gateway."""
        return self._connection.execute("SELECT 1 FROM entry WHERE owner = ?", (self._owner,)).fetchone() is not None

    def left(self, living: set[str]) -> list[tuple[str, str]]:
        """Entries of all owners but these: their requests' ids, with the owner."""
        entries = self._connection.execute("SELECT request_id, owner FROM entry")
        return [(request_id, owner) for request_id, owner in entries if owner not in living]

    def inherit(self, left: Sequence[tuple[str, str]]) -> list[tuple[Hold | None, UsageRecord]]:
        """Take over those of these entries that nobody else has; without a hold where one was settled."""
        found = []
        for entry in left:
            query = "SELECT hold, record FROM entry WHERE request_id = ? AND owner = ?"
            for hold, record in self._connection.execute(query, entry).fetchall():
                found.append((hold and _read_hold(hold), _read_record(record)))
                self._connection.execute("UPDATE entry SET owner = ? WHERE request_id = ?", (self._owner, entry[0]))
        return found


class _Busy(CapacityError):
    """Somebody else is within a transaction."""


class Daybook:
    """One file for all gateways of a machine that share a database; without a path only this process's, in memory.

    Args:
        patience_s: how long others' transactions are waited for.

    Raises:
        ConfigError: the file cannot be used.
    """

    def __init__(self, path: Path | None = None, patience_s: float = _PATIENCE_S) -> None:
        self._path = path
        self._patience_s = patience_s
        self._lock = threading.Lock()
        self._connection = _connect(path, patience_s)
        self._presence = None if path is None else Presence(path)
        self._owner = _OWN_MEMORY if self._presence is None else self._presence.name

    @contextlib.contextmanager
    def page(self) -> Iterator[Page]:
        """A transaction: all that is done with the page is kept, or nothing if an error leaves the context.

        Not for event loops: it sleeps until others have ended theirs.

        Raises:
            CapacityError: the file cannot be written to.
        """
        with contextlib.ExitStack() as stack:
            for pause_s in _pauses(self._patience_s):
                with contextlib.suppress(_Busy):
                    page = stack.enter_context(self._page())
                    break
                time.sleep(pause_s)
            else:
                page = stack.enter_context(self._page())
            yield page

    async def write(self, act: Callable[[Page], Result]) -> Result:
        """One transaction from an event loop, which goes on while others have theirs; what ``act`` returns.

        Raises:
            CapacityError: the file cannot be written to.
        """
        for pause_s in _pauses(self._patience_s):
            with contextlib.suppress(_Busy), self._page() as page:
                return act(page)
            await asyncio.sleep(pause_s)
        with self._page() as page:
            return act(page)

    @contextlib.contextmanager
    def _page(self) -> Iterator[Page]:
        """A transaction, at once or not at all."""
        if not self._lock.acquire(blocking=False):
            raise _Busy(f"The accounts in {self._path} are being written to; try again.")
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
            raise (_Busy if _is_busy(error) else CapacityError)(message) from error
        finally:
            self._lock.release()

    def forget(self, request_ids: Sequence[str]) -> None:
        """They are elsewhere now."""
        with self.page() as page:
            for request_id in request_ids:
                page.forget(request_id)

    async def inherit(self, settle: Callable[[Page, Hold, UsageRecord], None]) -> AsyncIterator[list[UsageRecord]]:
        """Take over from gateways that live no more, once, whoever else tries; records for the ledger, some at a time.

        A gateway counts as missing until all that it left is taken over.

        Args:
            settle: ends an open entry as it was last noted.
        """
        left, dead = await self.write(self._left)
        for start in range(0, len(left), _INHERITED_AT_ONCE):
            yield await self.write(partial(_take_over, left[start : start + _INHERITED_AT_ONCE], settle))
        if self._presence is not None:
            self._presence.bury(dead)

    def _left(self, page: Page) -> tuple[list[tuple[str, str]], set[str]]:
        """What is to be taken over, and who lives no more."""
        # Who has an entry by now was there before: nobody comes in between.
        living, dead = ({self._owner}, set[str]()) if self._presence is None else self._presence.roll_call()
        return page.left(living), dead

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
        """Leave; whoever lives, or comes next, is shown that something is left. Safe to repeat."""
        if self._presence is None:
            self._connection.close()
            return
        left = True
        with contextlib.suppress(CapacityError), self.page() as page:
            left = page.has_own
        self._connection.close()
        self._presence.close(missing=left)


def _take_over(
    left: Sequence[tuple[str, str]], settle: Callable[[Page, Hold, UsageRecord], None], page: Page
) -> list[UsageRecord]:
    found = page.inherit(left)
    for hold, record in found:
        if hold is not None:
            settle(page, hold, record)
    return [record for _, record in found]


def _pauses(patience_s: float) -> Iterator[float]:
    """How long to wait from try to try, in all as long as one is patient."""
    pause_s, end = _FIRST_PAUSE_S, time.monotonic() + patience_s
    while time.monotonic() < end:
        yield pause_s
        pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)


def _is_busy(error: sqlite3.Error) -> bool:
    """Whether the cause is another's transaction; an extended code holds the plain one in its last byte."""
    return getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF == sqlite3.SQLITE_BUSY


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
        connection.execute("PRAGMA busy_timeout = 0")  # from now on nobody sleeps within SQLite
    except sqlite3.Error as error:
        connection.close()
        raise ConfigError(f"the day book {path} cannot be used: {error}; move it away") from error
    return connection
