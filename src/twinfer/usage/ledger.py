"""The ledger in the database: rows written once each, and sums over them. Blocking."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec
from sqlalchemy import ColumnElement, Select, and_, case, func, select
from sqlalchemy.dialects import postgresql, sqlite

from twinfer.core.errors import ConfigError
from twinfer.identity.database import Database
from twinfer.identity.place import Place
from twinfer.identity.schema import USAGE
from twinfer.usage.record import Status, Tokens, UsageRecord

DIMENSIONS: Mapping[str, str] = {
    "tenant": "tenant",
    "key": "key_id",
    "model": "model",
    "profile": "profile",
    "operation": "operation",
    "status": "status",
    "tier": "tier",
    "latency": "latency",
    "route": "route",
}
"""What sums can be split by, and the column of each; besides these, by ``day`` and ``hour``."""
PERIODS = {"hour": 3_600_000, "day": 86_400_000}
"""In milliseconds."""
SUMS = (
    "input_tokens",
    "cache_read_tokens",
    "cache_write_tokens",
    "output_tokens",
    "prefill_s",
    "decode_s",
    "kv_byte_s",
    "bytes_moved",
    "recoveries",
    "cost_nano",
)
"""Columns that are added up."""
COLUMNS = tuple(column.name for column in USAGE.columns)
_ROWS_AT_ONCE = 1000


class Filter(msgspec.Struct, frozen=True):
    """Which records count: from ``since_ms`` on and before ``until_ms``, and with these values."""

    since_ms: int | None = None
    until_ms: int | None = None
    tenant: str | None = None
    model: str | None = None


class Ledger:
    """Usage records, each once."""

    def __init__(self, place: Place) -> None:
        self._database = Database(place)

    def write(self, records: Sequence[UsageRecord]) -> int:
        """Keep records; those whose request id is there already change nothing. Returns how many were new.

        Raises:
            ConfigError: the database cannot be used; then none of them was written.
        """
        if not records:
            return 0
        self._database.create()
        with self._database.transaction() as connection:
            self._database.migrate(connection)
            insert = postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert
            before = connection.scalar(_known(records))
            connection.execute(insert(USAGE).on_conflict_do_nothing(), [_row(record) for record in records])
            after = connection.scalar(_known(records))
            return int(after or 0) - int(before or 0)

    def sums(self, by: Sequence[str], wanted: Filter) -> list[dict[str, Any]]:
        """Requests and sums for each combination of dimensions, in their order; one row of all without dimensions.

        ``day`` and ``hour`` are the Unix milliseconds at which one begins.

        Raises:
            ConfigError: the database cannot be used, or there is no such dimension.
        """
        keys = [_dimension(name).label(name) for name in by]
        failed = func.sum(case((USAGE.c.status == Status.ANSWERED, 0), else_=1)).label("not_answered")
        added = [func.sum(USAGE.c[name]).label(name) for name in SUMS]
        query = _filtered(select(*keys, func.count().label("requests"), failed, *added), wanted)
        if keys:
            query = query.group_by(*keys).order_by(*keys)
        return [_whole(row) for row in self._rows(query) if row["requests"]]

    def rows(self, wanted: Filter) -> Iterator[dict[str, Any]]:
        """All records, the oldest first, as rows of the table.

        Raises:
            ConfigError: the database cannot be used.
        """
        return self._rows(_filtered(select(USAGE), wanted).order_by(USAGE.c.at_ms, USAGE.c.request_id))

    def _rows(self, query: Select[Any]) -> Iterator[dict[str, Any]]:
        if self._database.absent:
            return
        with self._database.transaction() as connection:
            self._database.migrate(connection)
            for row in connection.execution_options(yield_per=_ROWS_AT_ONCE).execute(query).mappings():
                yield dict(row)


def total(rows: Sequence[Mapping[str, Any]]) -> Tokens:
    """The tokens of rows or sums."""
    parts = (
        Tokens(row["input_tokens"], row["cache_read_tokens"], row["cache_write_tokens"], row["output_tokens"])
        for row in rows
    )
    return sum(parts, Tokens())


def _known(records: Sequence[UsageRecord]) -> Select[Any]:
    ids = [record.request_id for record in records]
    return select(func.count()).select_from(USAGE).where(USAGE.c.request_id.in_(ids))


def _row(record: UsageRecord) -> dict[str, Any]:
    row = msgspec.structs.asdict(record)
    tokens: Tokens = row.pop("tokens")
    return {
        **row,
        "status": record.status.value,
        "input_tokens": tokens.input,
        "cache_read_tokens": tokens.cache_read,
        "cache_write_tokens": tokens.cache_write,
        "output_tokens": tokens.output,
    }


def _dimension(name: str) -> ColumnElement[Any]:
    if name in PERIODS:
        return USAGE.c.at_ms - USAGE.c.at_ms % PERIODS[name]
    if name not in DIMENSIONS:
        known = ", ".join([*DIMENSIONS, *PERIODS])
        raise ConfigError(f"usage cannot be split by {name!r}; take some of {known}")
    return USAGE.c[DIMENSIONS[name]]


def _filtered(query: Select[Any], wanted: Filter) -> Select[Any]:
    conditions = [
        USAGE.c.at_ms >= wanted.since_ms if wanted.since_ms is not None else None,
        USAGE.c.at_ms < wanted.until_ms if wanted.until_ms is not None else None,
        USAGE.c.tenant == wanted.tenant if wanted.tenant is not None else None,
        USAGE.c.model == wanted.model if wanted.model is not None else None,
    ]
    given = [condition for condition in conditions if condition is not None]
    return query.where(and_(*given)) if given else query


def _whole(row: Mapping[str, Any]) -> dict[str, Any]:
    """PostgreSQL adds whole numbers up to a decimal one."""
    return {
        name: value if value is None or isinstance(value, str | float | int) else int(value)
        for name, value in row.items()
    }
