"""The keys' database, on SQLite and on a real PostgreSQL."""

import dataclasses
import threading
from pathlib import Path

import pytest
import sqlalchemy

from twinfer.core.config import IdentityConfig
from twinfer.core.errors import ConfigError
from twinfer.core.ids import TenantId
from twinfer.identity.credential import Issued, issue
from twinfer.identity.database import shown_url
from twinfer.identity.place import Place, place_of
from twinfer.identity.policy import Policy
from twinfer.identity.schema import LATEST, STATE, migrate, version_of
from twinfer.identity.seal import Seal, create_key
from twinfer.identity.sigv4 import CredentialScope, signing_key
from twinfer.identity.store import KeyRecord, KeysState, KeyStore


def make(store: KeyStore, tenant: str = "acme", *, temporary: bool = False, now: float = 1000.0) -> Issued:
    """A new key."""
    issued = issue(temporary=temporary)
    policy = Policy.parse(["bedrock:*@meta.*"], ["*@meta.secret"])
    store.create(KeyRecord(issued.key_id, TenantId(tenant), policy, now, now + 60, note="a note"), issued)
    return issued


def state_of(store: KeyStore) -> KeysState:
    """Everything, as a gateway reads it."""
    state = store.read()
    assert state is not None
    return state


def scope(key_id: str) -> CredentialScope:
    """Some scope of this key."""
    return CredentialScope(key_id, "20260102", "r", "bedrock")


def test_a_key_comes_back_as_it_was_made(place: Place) -> None:
    """To the operator without its secrets, to a gateway with them."""
    store = KeyStore(place)
    issued = make(store)
    (record,) = store.list()
    policy = Policy.parse(["bedrock:*@meta.*"], ["*@meta.secret"])
    assert record == KeyRecord(issued.key_id, TenantId("acme"), policy, 1000.0, 1060.0, note="a note")
    keys = state_of(store).keys
    credential, key = keys.signer(scope(issued.key_id))
    assert credential is not None
    assert (credential.principal.tenant, credential.principal.policy, credential.expires_s) == ("acme", policy, 1060.0)
    assert key == signing_key(issued.secret, scope(issued.key_id))
    assert keys.by_bearer(issued.bearer) == credential


def test_a_temporary_key_has_a_session_token(place: Place) -> None:
    """And no bearer key."""
    store = KeyStore(place)
    issued = make(store, temporary=True)
    assert [record.temporary for record in store.list()] == [True]
    keys = state_of(store).keys
    credential, _ = keys.signer(scope(issued.key_id))
    assert credential is not None
    assert credential.session_digest == keys.session_digest(issued.session_token) != b""
    assert keys.by_bearer("") is None


def test_a_revoked_key_is_nobody_s(place: Place) -> None:
    """It stays in the list, it cannot be revoked again, and the database is never open again."""
    store = KeyStore(place)
    issued = make(store)
    assert store.revoke(issued.key_id, 1001.0)
    assert not store.revoke(issued.key_id, 1002.0)
    assert not store.revoke("AKIANOBODY", 1002.0)
    assert [record.revoked_s for record in store.list()] == [1001.0]
    state = state_of(store)
    assert (len(state.keys), state.any_ever) == (0, True)


def test_only_changes_are_read(place: Place) -> None:
    """A gateway that asks again and again costs one row."""
    store = KeyStore(place)
    issued = make(store)
    first = state_of(store)
    assert store.read(first.revision) is None
    store.revoke(issued.key_id, 1.0)
    second = store.read(first.revision)
    assert second is not None
    assert second.revision > first.revision


def test_no_secret_is_in_the_database(place: Place) -> None:
    """Whoever has a copy of it can neither sign nor ask."""
    store = KeyStore(place)
    issued = [make(store), make(store, temporary=True)]
    engine = sqlalchemy.create_engine(place.url)
    with engine.connect() as connection:
        tables = [connection.execute(sqlalchemy.text(f"SELECT * FROM {name}")) for name in ("twinfer_keys", STATE.name)]
        cells = [
            bytes(cell) if not isinstance(cell, str) else cell.encode()
            for table in tables
            for row in table
            for cell in row
            if isinstance(cell, str | bytes | memoryview)
        ]
    engine.dispose()
    everything = b"\n".join(cells)
    assert issued[0].key_id.encode() in everything
    for secret in (text for each in issued for text in (each.secret, each.bearer, each.session_token) if text):
        assert secret.encode() not in everything


def test_another_key_is_one_sentence(place: Place, tmp_path: Path) -> None:
    """Whatever is asked of the database that needs its key."""
    make(KeyStore(place))
    other = tmp_path / "other.key"
    create_key(other)
    store = KeyStore(dataclasses.replace(place, key_file=other))
    for act in (store.read, lambda: make(store)):
        with pytest.raises(ConfigError, match=r"the key in .*other\.key did not seal this database"):
            act()
    with pytest.raises(ConfigError, match="the key in TWINFER_DATABASE_KEY did not seal this database"):
        KeyStore(dataclasses.replace(place, key="ab" * 32)).read()


def test_a_lost_key_is_one_sentence(place: Place) -> None:
    """A new one is not made in its place: it would open nothing."""
    store = KeyStore(place)
    make(store)
    place.key_file.unlink()
    for act in (store.read, lambda: make(store)):
        with pytest.raises(ConfigError, match="is missing: bring it back"):
            act()
    assert not place.key_file.exists()


def test_an_older_database_is_migrated(place: Place) -> None:
    """From every earlier schema; what was in it is there afterwards, and works."""
    seal, issued = Seal(create_key(place.key_file)), issue()
    engine = sqlalchemy.create_engine(place.url)
    with engine.begin() as connection:
        migrate(connection, 1)
        assert version_of(connection) == 1
        connection.execute(
            sqlalchemy.text(
                "INSERT INTO twinfer_keys (id, tenant, sealed_secret, allow, deny, created_s) "
                "VALUES (:id, 'old', :sealed, '[\"*\"]', '[]', 5)"
            ),
            {"id": issued.key_id, "sealed": seal.close(issued.key_id, issued.secret)},
        )
        connection.execute(STATE.insert().values(name="seal", number=0, blob=seal.close("seal", "twinfer")))
    store = KeyStore(place)
    credential, key = state_of(store).keys.signer(scope(issued.key_id))
    assert credential is not None
    assert key == signing_key(issued.secret, scope(issued.key_id))
    make(store, "new")
    assert [record.tenant for record in store.list()] == ["old", "new"]
    with engine.connect() as connection:
        assert version_of(connection) == LATEST
    engine.dispose()


def test_a_newer_database_is_refused(place: Place) -> None:
    """Rather than read wrongly."""
    make(KeyStore(place))
    engine = sqlalchemy.create_engine(place.url)
    with engine.begin() as connection:
        connection.execute(STATE.update().where(STATE.c.name == "schema").values(number=LATEST + 1))
    engine.dispose()
    store = KeyStore(place)
    for act in (store.read, store.list, lambda: make(store)):
        with pytest.raises(ConfigError, match="upgrade twinfer"):
            act()


def test_many_make_the_first_key_at_once(place: Place) -> None:
    """Tables, the database's key and the rows are made once, and nobody's key is lost."""
    failures: list[BaseException] = []

    def one() -> None:
        try:
            make(KeyStore(place))
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=one) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert len(state_of(KeyStore(place)).keys) == 6


def test_nothing_is_made_by_reading(tmp_path: Path) -> None:
    """A gateway that never had keys leaves no file behind."""
    place = place_of(IdentityConfig(database=f"sqlite:///{tmp_path}/none/keys.db"), {})
    store = KeyStore(place)
    assert not state_of(store).any_ever
    assert store.read(0) is None
    assert store.list() == ()
    assert not store.revoke("AKIA", 1.0)
    assert list(tmp_path.iterdir()) == []


def test_sqlite_s_files_are_their_owner_s(tmp_path: Path) -> None:
    """Database and key alike."""
    make(KeyStore(place_of(IdentityConfig(database=f"sqlite:///{tmp_path}/deep/keys.db"), {})))
    files = sorted((tmp_path / "deep").iterdir())
    assert [(each.name, each.stat().st_mode & 0o777) for each in files] == [("keys.db", 0o600), ("keys.db.key", 0o600)]


def test_a_database_that_cannot_be_used_is_one_sentence(tmp_path: Path) -> None:
    """No file of SQLite, or nobody there."""
    broken = tmp_path / "keys.db"
    broken.write_text("this is no database, but a text that is longer than its header would be" * 20)
    with pytest.raises(ConfigError, match=r"the database sqlite:.*keys\.db cannot be used: file is not a database"):
        KeyStore(place_of(IdentityConfig(database=f"sqlite:///{broken}"), {})).list()
    away = place_of(IdentityConfig(database=f"postgresql://me:hush@/x?host={tmp_path}"), {})
    with pytest.raises(ConfigError, match="cannot be used") as refused:
        KeyStore(away).list()
    assert "hush" not in str(refused.value)


def test_where_it_is(tmp_path: Path) -> None:
    """The configuration, else the environment, else a place at home."""
    environment = {"TWINFER_DATABASE_URL": "postgres://me@db/x", "XDG_DATA_HOME": str(tmp_path)}
    assert place_of(IdentityConfig(), {"XDG_DATA_HOME": str(tmp_path)}).file == tmp_path / "twinfer" / "twinfer.db"
    there = place_of(IdentityConfig(), environment)
    assert (there.url, there.key_file) == ("postgresql+psycopg://me@db/x", tmp_path / "twinfer" / "database.key")
    given = place_of(IdentityConfig(database="sqlite:///a.db", key_file="b.key"), environment)
    assert (given.file, given.key_file) == (Path("a.db"), Path("b.key"))
    for url in ("mysql://x", "sqlite://", "nonsense"):
        with pytest.raises(ConfigError, match="give sqlite:///FILE or postgresql://"):
            place_of(IdentityConfig(database=url), {})


def test_passwords_are_not_shown() -> None:
    """In nothing that is printed or logged."""
    assert "hush" not in shown_url("postgresql+psycopg://me:hush@db/x")
    assert "hush" not in repr(place_of(IdentityConfig(database="postgresql://me:hush@db/x"), {}))
