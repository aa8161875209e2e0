"""The database's tables, as numbered steps: a database knows which it has taken, and the rest follow in order.

A step is never changed once it was released; a further one is added. Times are Unix seconds.
"""

from collections.abc import Sequence

from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    Float,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    inspect,
    text,
)
from sqlalchemy.schema import CreateTable

from twinfer.core.errors import ConfigError

METADATA = MetaData()
STATE = Table(
    "twinfer_state",
    METADATA,
    Column("name", String(64), primary_key=True),
    Column("number", Integer, nullable=False, server_default="0"),
    Column("blob", LargeBinary),
)
"""One row each: ``schema`` (the last step taken), ``revision`` (grows with every change), ``seal`` (sealed, to tell a
wrong key)."""
KEYS = Table(
    "twinfer_keys",
    METADATA,
    Column("id", String(128), primary_key=True),
    Column("tenant", String(128), nullable=False),
    Column("sealed_secret", LargeBinary, nullable=False),
    Column("bearer_digest", LargeBinary),
    Column("allow", Text, nullable=False),
    Column("deny", Text, nullable=False),
    Column("created_s", Float, nullable=False),
    Column("expires_s", Float),
    Column("revoked_s", Float),
    Column("session_digest", LargeBinary),
    Column("note", Text, nullable=False, server_default=""),
)
"""Access keys; a revoked one stays. ``allow`` and ``deny`` are lists of rules in JSON."""
USAGE = Table(
    "twinfer_usage",
    METADATA,
    Column("request_id", String(64), primary_key=True),
    Column("at_ms", BigInteger, nullable=False),
    *(
        Column(name, String(256), nullable=False)
        for name in ("tenant", "key_id", "model", "profile", "operation", "status", "tier", "latency", "route")
    ),
    *(
        Column(name, BigInteger, nullable=False)
        for name in ("input_tokens", "cache_read_tokens", "cache_write_tokens", "output_tokens", "bytes_moved")
    ),
    *(Column(name, Float, nullable=False) for name in ("prefill_s", "decode_s", "kv_byte_s")),
    Column("recoveries", Integer, nullable=False),
    Column("cost_nano", BigInteger),
)
"""The ledger: one row for each request, by its id. ``at_ms`` is when it came, in Unix milliseconds; ``cost_nano`` is in
10^-9 of the price file's currency, and NULL where there was none."""

_STEPS: Sequence[Sequence[str]] = (
    (
        """CREATE TABLE twinfer_keys (
            id VARCHAR(128) PRIMARY KEY, tenant VARCHAR(128) NOT NULL, sealed_secret {blob} NOT NULL,
            bearer_digest {blob}, allow TEXT NOT NULL, deny TEXT NOT NULL, created_s {real} NOT NULL,
            expires_s {real}, revoked_s {real})""",
    ),
    (
        "ALTER TABLE twinfer_keys ADD COLUMN session_digest {blob}",
        "ALTER TABLE twinfer_keys ADD COLUMN note TEXT NOT NULL DEFAULT ''",
    ),
    (
        """CREATE TABLE twinfer_usage (
            request_id VARCHAR(64) PRIMARY KEY, at_ms BIGINT NOT NULL, tenant VARCHAR(256) NOT NULL,
            key_id VARCHAR(256) NOT NULL, model VARCHAR(256) NOT NULL, profile VARCHAR(256) NOT NULL,
            operation VARCHAR(256) NOT NULL, status VARCHAR(256) NOT NULL, tier VARCHAR(256) NOT NULL,
            latency VARCHAR(256) NOT NULL, route VARCHAR(256) NOT NULL, input_tokens BIGINT NOT NULL,
            cache_read_tokens BIGINT NOT NULL, cache_write_tokens BIGINT NOT NULL, output_tokens BIGINT NOT NULL,
            bytes_moved BIGINT NOT NULL, prefill_s {real} NOT NULL, decode_s {real} NOT NULL, kv_byte_s {real} NOT NULL,
            recoveries INTEGER NOT NULL, cost_nano BIGINT)""",
        "CREATE INDEX twinfer_usage_at ON twinfer_usage (at_ms)",
    ),
)
LATEST = len(_STEPS)


def version_of(connection: Connection) -> int:
    """The last step that a database has taken; 0 for one without our tables."""
    if not inspect(connection).has_table(STATE.name):
        return 0
    found = connection.scalar(STATE.select().with_only_columns(STATE.c.number).where(STATE.c.name == "schema"))
    return int(found or 0)


def migrate(connection: Connection, until: int = LATEST) -> None:
    """Take the steps that are missing, within the connection's transaction.

    Raises:
        ConfigError: the database is newer than this version of Twinfer.
    """
    if not inspect(connection).has_table(STATE.name):
        connection.execute(CreateTable(STATE, if_not_exists=True))
        connection.execute(STATE.insert(), [{"name": name, "number": 0} for name in ("schema", "revision")])
    version = version_of(connection)
    check_known(version)
    words = {"blob": "BYTEA", "real": "DOUBLE PRECISION"} if connection.dialect.name == "postgresql" else {}
    for step in _STEPS[version:until]:
        for statement in step:
            connection.execute(text(statement.format(**{"blob": "BLOB", "real": "REAL"} | words)))
    connection.execute(STATE.update().where(STATE.c.name == "schema").values(number=max(version, until)))


def check_known(version: int) -> None:
    """See that a database is not newer than we.

    Raises:
        ConfigError: it is.
    """
    if version > LATEST:
        raise ConfigError(
            f"the database has schema {version}, and this version of twinfer knows {LATEST}: upgrade twinfer"
        )
