"""The database that keys and usage share: SQLAlchemy Core on SQLite, or PostgreSQL by URL. Blocking."""

import contextlib
from collections.abc import Iterator

from sqlalchemy import Connection, Engine, create_engine, event, make_url, text
from sqlalchemy.exc import ArgumentError, NoSuchModuleError, SQLAlchemyError
from sqlalchemy.pool import NullPool

from twinfer.core.errors import ConfigError
from twinfer.identity.place import Place
from twinfer.identity.schema import LATEST, check_known, migrate, version_of

_PATIENCE_S = 5
_LOCK = 0x7477_696E
"""PostgreSQL's advisory lock for migrations: "twin" in ASCII."""


class Database:
    """One database at its place. No connection is held between transactions."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self._engine = _engine(place)

    @property
    def absent(self) -> bool:
        """Whether it is a file that is not there."""
        return self.place.file is not None and not self.place.file.exists()

    def create(self) -> None:
        """Make SQLite's file, readable by its owner only, unless it is there."""
        if self.place.file is not None:
            try:
                self.place.file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                self.place.file.touch(mode=0o600)
            except OSError as error:
                raise self._unusable(error.strerror or str(error)) from error

    @contextlib.contextmanager
    def transaction(self) -> Iterator[Connection]:
        """A connection whose changes are kept when all goes well, and none of them otherwise.

        Raises:
            ConfigError: the database cannot be used.
        """
        try:
            with self._engine.begin() as connection:
                yield connection
        except SQLAlchemyError as error:
            reason = str(getattr(error, "orig", None) or error).strip().partition("\n")[0]
            raise self._unusable(reason) from error

    def migrate(self, connection: Connection) -> None:
        """Take the schema's steps that are missing.

        Raises:
            ConfigError: the database is newer than this version of Twinfer.
        """
        version = version_of(connection)
        check_known(version)
        if version != LATEST:
            if connection.dialect.name == "postgresql":
                connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
            migrate(connection)

    def _unusable(self, reason: str) -> ConfigError:
        return ConfigError(f"the database {shown_url(self.place.url)} cannot be used: {reason}")


def shown_url(url: str) -> str:
    """A database's URL without its password."""
    return make_url(url).render_as_string(hide_password=True)


def _engine(place: Place) -> Engine:
    arguments = {"timeout": _PATIENCE_S} if place.file is not None else {"connect_timeout": _PATIENCE_S}
    try:
        engine = create_engine(place.url, poolclass=NullPool, connect_args=arguments, hide_parameters=True)
    except (ArgumentError, NoSuchModuleError) as error:
        raise ConfigError(f"the database's URL cannot be used: {error}") from error
    except ImportError as error:
        raise ConfigError("PostgreSQL needs psycopg: pip install 'twinfer[postgresql]'") from error
    if place.file is not None:
        event.listen(engine, "begin", _begin_for_writing)
    return engine


def _begin_for_writing(connection: Connection) -> None:
    """SQLite takes its lock at once, so that tables are not made by two at a time; Python's module would begin late."""
    connection.exec_driver_sql("BEGIN IMMEDIATE")
