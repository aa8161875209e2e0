from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy

from tests.identity.postgres import running_postgres
from twinfer.core.config import IdentityConfig
from twinfer.identity.place import Place, place_of
from twinfer.identity.schema import METADATA


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """The URL of a database on a real server."""
    with running_postgres() as url:
        yield url


@pytest.fixture(params=["sqlite", "postgresql"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    """An empty database of each kind."""
    if request.param == "sqlite":
        yield place_of(IdentityConfig(database=f"sqlite:///{tmp_path}/keys.db"), {})
        return
    url = request.getfixturevalue("postgres")
    place = place_of(IdentityConfig(database=url, key_file=str(tmp_path / "database.key")), {})
    yield place
    engine = sqlalchemy.create_engine(place.url)
    METADATA.drop_all(engine)
    engine.dispose()
