"""Where the keys' database and its key are: from the configuration, or else from the environment, or else at home."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from twinfer.core.config import IdentityConfig
from twinfer.core.errors import ConfigError

DATABASE_URL_VARIABLE = "TWINFER_DATABASE_URL"
DATABASE_KEY_VARIABLE = "TWINFER_DATABASE_KEY"
_SQLITE = "sqlite:///"
_POSTGRESQL = ("postgresql://", "postgres://")


@dataclass(frozen=True, slots=True)
class Place:
    """A database's address.

    Attributes:
        url: as SQLAlchemy takes it; may hold a password.
        file: of SQLite; ``None`` for a server.
        key_file: of its key.
        key: its key in hexadecimal, where the environment holds it.
    """

    url: str = field(repr=False)
    file: Path | None
    key_file: Path
    key: str = field(default="", repr=False)


def place_of(config: IdentityConfig, environment: Mapping[str, str] = os.environ) -> Place:
    """Find it.

    Raises:
        ConfigError: the URL is for neither SQLite nor PostgreSQL.
    """
    home = Path(environment.get("XDG_DATA_HOME") or Path.home() / ".local" / "share") / "twinfer"
    url = config.database or environment.get(DATABASE_URL_VARIABLE) or f"{_SQLITE}{home / 'twinfer.db'}"
    key = environment.get(DATABASE_KEY_VARIABLE, "")
    if url.startswith(_SQLITE) and len(url) > len(_SQLITE):
        file = Path(url.removeprefix(_SQLITE))
        beside = file.with_name(f"{file.name}.key")
        return Place(url, file, Path(config.key_file) if config.key_file else beside, key)
    for scheme in _POSTGRESQL:
        if url.startswith(scheme):
            key_file = Path(config.key_file) if config.key_file else home / "database.key"
            return Place(f"postgresql+psycopg://{url.removeprefix(scheme)}", None, key_file, key)
    scheme = url.partition(":")[0]
    raise ConfigError(f"the database's URL begins with {scheme!r}; give sqlite:///FILE or postgresql://USER@HOST/NAME")
