"""The database's own key: secrets are sealed with it, and digests are keyed by it.

It is 32 random bytes, in hexadecimal, in a file that only its owner may read or in the environment. Whoever has the
database alone learns no secret; whoever has both can sign as anybody.
"""

import hashlib
import hmac
import os
import secrets
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from twinfer.core.errors import ConfigError
from twinfer.identity.place import DATABASE_KEY_VARIABLE

_KEY_BYTES = 32
_NONCE_BYTES = 12


class Seal:
    """Seals secrets with AES-256-GCM, each to the name under which it is stored.

    Args:
        key: 32 bytes.
    """

    def __init__(self, key: bytes) -> None:
        self._cipher = AESGCM(_derived(key, b"twinfer seal 1"))
        self.pepper = _derived(key, b"twinfer digest 1")
        """Keys the digests of tokens."""

    def close(self, name: str, secret: str) -> bytes:
        """The sealed form of a secret: it opens under the same name alone."""
        nonce = secrets.token_bytes(_NONCE_BYTES)
        return nonce + self._cipher.encrypt(nonce, secret.encode(), name.encode())

    def open(self, name: str, sealed: bytes) -> str | None:
        """The secret; nothing where another key, or another name, sealed it."""
        try:
            return self._cipher.decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], name.encode()).decode()
        except (InvalidTag, ValueError):
            return None


def read_key(path: Path, in_environment: str = "") -> bytes | None:
    """The database's key, from the environment's text or else from its file; nothing where neither is there.

    Raises:
        ConfigError: it is no key, or others may read its file.
    """
    if in_environment:
        return _parsed(in_environment, DATABASE_KEY_VARIABLE)
    try:
        with path.open("rb") as file:
            mode, text = os.fstat(file.fileno()).st_mode, file.read(1024)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ConfigError(f"cannot read the database's key {path}: {error.strerror}") from error
    if mode & 0o077:
        raise ConfigError(f"others may read the database's key {path}: chmod 600 it, and revoke keys if they did")
    return _parsed(text.decode("latin-1"), str(path))


def create_key(path: Path) -> bytes:
    """Draw a key and keep it in a file that only its owner may read; when another process was faster, take its key.

    Raises:
        ConfigError: the file cannot be written.
    """
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(secrets.token_hex(_KEY_BYTES).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(draft, path)
        except FileExistsError:
            pass
        finally:
            draft.unlink()
    except OSError as error:
        raise ConfigError(f"cannot write the database's key {path}: {error.strerror}; choose another place") from error
    key = read_key(path)
    assert key is not None
    return key


def _derived(key: bytes, purpose: bytes) -> bytes:
    return hmac.digest(key, purpose, hashlib.sha256)


def _parsed(text: str, where: str) -> bytes:
    try:
        key = bytes.fromhex(text.strip())
    except ValueError:
        key = b""
    if len(key) != _KEY_BYTES:
        raise ConfigError(f"{where} must hold {2 * _KEY_BYTES} hexadecimal digits, as from: openssl rand -hex 32")
    return key
