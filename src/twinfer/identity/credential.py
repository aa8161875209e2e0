"""A key as a gateway holds it, and the forms in which clients hold it."""

import base64
import binascii
import hashlib
import hmac
import secrets
from dataclasses import dataclass, field

from twinfer.identity.principal import Principal

LONG_TERM_PREFIX = "ABSK"
_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"
_ID_LETTERS = 16
_SECRET_BYTES = 30


@dataclass(frozen=True, slots=True)
class Credential:
    """One access key. Times are Unix seconds.

    Attributes:
        secret: signs requests.
        session_digest: of the session token that must come with it; empty for a key that has none.
        bearer_digest: of the bearer key of the same identity; empty where there is none.
        expires_s: it proves nothing from then on; ``None`` never.
    """

    principal: Principal
    secret: str = field(repr=False)
    session_digest: bytes = field(default=b"", repr=False)
    bearer_digest: bytes = field(default=b"", repr=False)
    expires_s: float | None = None

    @property
    def key_id(self) -> str:
        """The access key's id."""
        return self.principal.key_id

    def expired(self, now: float) -> bool:
        """Whether it proves nothing any more."""
        return self.expires_s is not None and now >= self.expires_s


@dataclass(frozen=True, slots=True)
class Issued:
    """What its holder gets to see once. A temporary key has a session token, any other a bearer key."""

    key_id: str
    secret: str = field(repr=False)
    bearer: str = field(default="", repr=False)
    session_token: str = field(default="", repr=False)


def issue(*, temporary: bool = False) -> Issued:
    """Draw a new key, in the form of AWS's own."""
    key_id = ("ASIA" if temporary else "AKIA") + "".join(secrets.choice(_LETTERS) for _ in range(_ID_LETTERS))
    secret = base64.b64encode(secrets.token_bytes(_SECRET_BYTES)).decode()
    if temporary:
        return Issued(key_id, secret, session_token=base64.b64encode(secrets.token_bytes(96)).decode())
    random = base64.b64encode(secrets.token_bytes(_SECRET_BYTES)).decode()
    bearer = LONG_TERM_PREFIX + base64.b64encode(f"BedrockAPIKey-{key_id}:{random}".encode()).decode()
    return Issued(key_id, secret, bearer)


def digest(pepper: bytes, token: str) -> bytes:
    """What is stored of a bearer key or session token: of no use to whoever reads the database alone.

    Tokens are drawn at random and long, so that a keyed hash does; nobody can steer what it is compared with.
    """
    return hmac.digest(pepper, token.encode("utf-8", "surrogateescape"), hashlib.sha256)


def decoded(text: str) -> bytes | None:
    """Base64, or nothing where it is none."""
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return None
