"""The keys in the database. Blocking; a gateway calls it from a thread."""

from dataclasses import dataclass

import msgspec
from sqlalchemy import Connection, func, select

from twinfer.core.errors import ConfigError
from twinfer.core.ids import TenantId
from twinfer.identity.credential import Credential, Issued, digest
from twinfer.identity.database import Database
from twinfer.identity.keyring import Keyring
from twinfer.identity.place import DATABASE_KEY_VARIABLE, Place
from twinfer.identity.policy import Policy
from twinfer.identity.principal import Principal
from twinfer.identity.schema import KEYS, STATE
from twinfer.identity.seal import Seal, create_key, read_key

_SEALED_CHECK = "twinfer"


@dataclass(frozen=True, slots=True)
class KeyRecord:
    """A key as its operator may see it. Times are Unix seconds."""

    key_id: str
    tenant: TenantId
    policy: Policy
    created_s: float
    expires_s: float | None = None
    revoked_s: float | None = None
    temporary: bool = False
    note: str = ""


@dataclass(frozen=True, slots=True)
class KeysState:
    """All keys at one revision of the database.

    Attributes:
        any_ever: whether a key was ever made, revoked ones included.
    """

    revision: int
    any_ever: bool
    keys: Keyring


class KeyStore:
    """The database behind ``twinfer keys`` and the gateways. No connection is held between calls."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._database = Database(place)

    def create(self, record: KeyRecord, issued: Issued) -> None:
        """Keep a new key; the database and its key are made when they are not there.

        Raises:
            ConfigError: the database cannot be used.
        """
        self._database.create()
        with self._database.transaction() as connection:
            self._database.migrate(connection)
            seal = self._seal(connection, may_create=True)
            row = {
                "id": record.key_id,
                "tenant": record.tenant,
                "sealed_secret": seal.close(record.key_id, issued.secret),
                "bearer_digest": digest(seal.pepper, issued.bearer) if issued.bearer else None,
                "session_digest": digest(seal.pepper, issued.session_token) if issued.session_token else None,
                "allow": _rules([str(rule) for rule in record.policy.allow]),
                "deny": _rules([str(rule) for rule in record.policy.deny]),
                "created_s": record.created_s,
                "expires_s": record.expires_s,
                "note": record.note,
            }
            connection.execute(KEYS.insert().values(row))
            _changed(connection)

    def list(self) -> tuple[KeyRecord, ...]:
        """All keys, the oldest first; none where there is no database.

        Raises:
            ConfigError: the database cannot be used.
        """
        if self._database.absent:
            return ()
        with self._database.transaction() as connection:
            self._database.migrate(connection)
            rows = connection.execute(KEYS.select().order_by(KEYS.c.created_s, KEYS.c.id)).mappings()
            return tuple(
                KeyRecord(
                    key_id=row["id"],
                    tenant=TenantId(row["tenant"]),
                    policy=_policy(row["allow"], row["deny"]),
                    created_s=row["created_s"],
                    expires_s=row["expires_s"],
                    revoked_s=row["revoked_s"],
                    temporary=row["session_digest"] is not None,
                    note=row["note"],
                )
                for row in rows
            )

    def revoke(self, key_id: str, now: float) -> bool:
        """End a key, from ``now`` on; false where there is none of this id that was not ended before.

        Raises:
            ConfigError: the database cannot be used.
        """
        if self._database.absent:
            return False
        with self._database.transaction() as connection:
            self._database.migrate(connection)
            named = (KEYS.c.id == key_id) & KEYS.c.revoked_s.is_(None)
            if not connection.execute(KEYS.update().where(named).values(revoked_s=now)).rowcount:
                return False
            _changed(connection)
            return True

    def read(self, known: int | None = None) -> KeysState | None:
        """All keys, with their secrets; nothing where the database is still at the revision ``known``.

        An older database is migrated first. Without a database there are no keys, at revision 0.

        Raises:
            ConfigError: the database cannot be used.
        """
        if self._database.absent:
            return None if known == 0 else KeysState(0, False, Keyring())
        with self._database.transaction() as connection:
            self._database.migrate(connection)
            revision = int(connection.scalar(select(STATE.c.number).where(STATE.c.name == "revision")) or 0)
            if revision == known:
                return None
            if not connection.scalar(select(func.count()).select_from(KEYS)):
                return KeysState(revision, False, Keyring())
            seal = self._seal(connection, may_create=False)
            rows = connection.execute(KEYS.select().where(KEYS.c.revoked_s.is_(None))).mappings()
            credentials = [
                Credential(
                    Principal(TenantId(row["tenant"]), row["id"], _policy(row["allow"], row["deny"])),
                    self._opened(seal, row["id"], row["sealed_secret"]),
                    row["session_digest"] or b"",
                    row["bearer_digest"] or b"",
                    row["expires_s"],
                )
                for row in rows
            ]
            return KeysState(revision, True, Keyring(credentials, seal.pepper))

    def _seal(self, connection: Connection, *, may_create: bool) -> Seal:
        """The database's key, checked against what it sealed; made together with the first key."""
        key = read_key(self._place.key_file, self._place.key)
        check = connection.scalar(select(STATE.c.blob).where(STATE.c.name == "seal"))
        if key is None:
            if check is not None or not may_create:
                raise ConfigError(
                    f"the database's key {self._place.key_file} is missing: bring it back, or set "
                    f"{DATABASE_KEY_VARIABLE}; without it the secrets in the database cannot be opened"
                )
            key = create_key(self._place.key_file)
        seal = Seal(key)
        if check is None:
            connection.execute(STATE.insert().values(name="seal", number=0, blob=seal.close("seal", _SEALED_CHECK)))
        else:
            self._opened(seal, "seal", check)
        return seal

    def _opened(self, seal: Seal, name: str, sealed: bytes) -> str:
        secret = seal.open(name, sealed)
        if secret is None:
            where = DATABASE_KEY_VARIABLE if self._place.key else str(self._place.key_file)
            raise ConfigError(f"the key in {where} did not seal this database: bring the one that it was made with")
        return secret


def _changed(connection: Connection) -> None:
    connection.execute(STATE.update().where(STATE.c.name == "revision").values(number=STATE.c.number + 1))


def _rules(rules: list[str]) -> str:
    return msgspec.json.encode(rules).decode()


def _policy(allow: str, deny: str) -> Policy:
    return Policy.parse(msgspec.json.decode(allow, type=list[str]), msgspec.json.decode(deny, type=list[str]))
