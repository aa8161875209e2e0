"""Workers as gateways find them at run time: one file each in a directory that both share. Workers that were started by
hand stand in the `registry`; a launcher writes down its own in a roster, of the same form.

Security: gateways dial what stands there, so the directory must belong to this user, and nobody else may write to it.
"""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import msgspec

from twinfer.core.address import check_address
from twinfer.core.errors import ConfigError
from twinfer.core.ids import WorkerId

_SUFFIX = ".worker"


class _Entry(msgspec.Struct, frozen=True):
    worker: WorkerId
    address: str


def check_registry(directory: str) -> Path:
    """The directory.

    Raises:
        ConfigError: it is not there, or others may write to it.
    """
    path = Path(directory)
    try:
        status = path.stat()
    except OSError as error:
        raise ConfigError(
            f"the registry {directory!r} cannot be read: {error.strerror}; make this directory"
        ) from error
    if status.st_uid != os.geteuid() or status.st_mode & 0o022:
        raise ConfigError(f"others may write to the registry {directory!r}: make it yours, with chmod 700")
    return path


@contextlib.contextmanager
def announced(directory: Path, worker: WorkerId, address: str) -> Iterator[None]:
    """Stand in the registry for as long as the context lasts."""
    announce(directory, worker, address)
    try:
        yield
    finally:
        withdraw(directory, worker)


def announce(directory: Path, worker: WorkerId, address: str) -> None:
    """Write there where a worker is."""
    draft = directory / f"{worker}.{os.getpid()}.new"
    draft.write_bytes(msgspec.json.encode(_Entry(worker, address)))
    draft.replace(directory / f"{worker}{_SUFFIX}")


def withdraw(directory: Path, worker: WorkerId) -> None:
    """A worker has left."""
    (directory / f"{worker}{_SUFFIX}").unlink(missing_ok=True)


def read_registry(directory: Path, *, encrypted: bool) -> dict[WorkerId, str]:
    """Addresses of those that stand there, by name; what cannot be used is left out."""
    found: dict[WorkerId, str] = {}
    for path in sorted(directory.glob(f"*{_SUFFIX}")):
        with contextlib.suppress(OSError, msgspec.DecodeError, ConfigError):
            entry = msgspec.json.decode(path.read_bytes(), type=_Entry)
            check_address(entry.address, encrypted=encrypted)
            found[entry.worker] = entry.address
    return found
