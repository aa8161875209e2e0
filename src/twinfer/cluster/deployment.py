"""A running deployment as tools on the same machine find it: one file in its private directory.

Security: the file holds the cluster key, and whoever holds that key can make workers do anything. It has mode 0600, in
a directory of mode 0700 of the same user, and goes when the deployment ends. Whoever reads it must see that both belong
to himself, and that a process is a child of this deployment before sending it a signal: the temporary directory is
everybody's, and process ids are used again.
"""

import contextlib
import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec

from twinfer.core.config import HandoffConfig
from twinfer.core.errors import ConfigError
from twinfer.core.ids import ModelId, WorkerId

RECORD = "deployment.json"
ROSTER = "roster"
"""Directory in which gateways find the workers that there are now."""
ORDERS = "orders.sock"
"""Socket on which the deployment takes orders."""
PREFIX = "twinfer-"
YOUNG_S = 10.0


class WorkerRecord(msgspec.Struct, frozen=True):
    """A worker: its role, and its control plane's address."""

    role: str
    address: str


class DeploymentRecord(msgspec.Struct, frozen=True):
    """What ``twinfer serve`` runs.

    Args:
        url: of the gateway.
        supervisor: process id of ``twinfer serve``, parent of all others.
        pids: of the gateway and of the workers started by it, by name.
        workers: all of them, those started elsewhere included.
        models: ids, as clients name them.
        cluster_key: in hexadecimal.
    """

    url: str
    supervisor: int
    pids: dict[str, int]
    workers: dict[WorkerId, WorkerRecord]
    models: tuple[ModelId, ...]
    handoff: HandoffConfig
    cluster_key: str


def directory_prefix(port: int) -> str:
    """How the names of the private directories of deployments on this port begin."""
    return f"{PREFIX}{port}-"


@contextlib.contextmanager
def private_directory(port: int) -> Iterator[Path]:
    """The directory of a deployment on this port, gone at the end; first those of killed ones are removed.

    Whoever lives holds a lock on his. One without a lock is left alone while it is younger than ``YOUNG_S``: it may be
    about to get it.
    """
    sweep()
    with tempfile.TemporaryDirectory(prefix=directory_prefix(port)) as name:
        descriptor = os.open(name, os.O_RDONLY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield Path(name)
        finally:
            os.close(descriptor)


def sweep(young_s: float = YOUNG_S) -> None:
    """Remove this user's directories of deployments that were killed."""
    for path in Path(tempfile.gettempdir()).glob(f"{PREFIX}*-*"):
        with contextlib.suppress(OSError, ConfigError):
            if _is_mine(path) and time.time() - path.stat().st_mtime >= young_s and not _is_served(path):
                descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    shutil.rmtree(path)
                finally:
                    os.close(descriptor)


def write_record(path: Path, record: DeploymentRecord) -> None:
    """Write it, or replace what is there at once and as a whole."""
    draft = path.with_suffix(".new")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(msgspec.json.encode(record))
    draft.replace(path)


def find_record(port: int) -> Path:
    """The description of the deployment on this port.

    Raises:
        ConfigError: there is none of this user.
    """
    found = sorted(Path(tempfile.gettempdir()).glob(f"{directory_prefix(port)}*"))
    own = [path / RECORD for path in found if _is_mine(path) and _is_mine(path / RECORD)]
    alive = [path for path in own if is_running(read_record(path).supervisor)]
    if alive:
        return alive[0]
    if any(not _is_mine(path) for path in found):
        raise ConfigError(f"the deployment on port {port} is another user's; run this as whoever started it")
    raise ConfigError(f"no 'twinfer serve' runs on port {port} of this machine (searched in {tempfile.gettempdir()})")


def remove_traces(record: Path) -> None:
    """Remove the record of a deployment whose launcher was killed, and what the launcher itself kept beside it."""
    record.unlink(missing_ok=True)
    (record.parent / ORDERS).unlink(missing_ok=True)
    shutil.rmtree(record.parent / ROSTER, ignore_errors=True)


def read_record(path: Path) -> DeploymentRecord:
    """The description of this moment; process ids change with every restart.

    Raises:
        ConfigError: it is gone, or of another version.
    """
    try:
        return msgspec.json.decode(path.read_bytes(), type=DeploymentRecord)
    except OSError as error:
        raise ConfigError(f"the deployment has ended: {path} is gone") from error
    except msgspec.DecodeError as error:
        raise ConfigError(f"{path} is of another version of twinfer: {error}") from error


def is_running(pid: int, parent: int | None = None) -> bool:
    """Whether there is such a process, not yet ended, and a child of ``parent`` if that is given."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return False
    return fields[0] not in ("Z", "X") and parent in (None, int(fields[1]))


def _is_served(path: Path) -> bool:
    """Whether it may be somebody's: its name is no deployment's, or the deployment that it describes runs."""
    if not path.name.removeprefix(PREFIX).partition("-")[0].isdecimal():
        return True
    record = path / RECORD
    return record.exists() and is_running(read_record(record).supervisor)


def _is_mine(path: Path) -> bool:
    """Whether it exists, belongs to this user, and nobody else may write to it."""
    try:
        status = path.stat(follow_symlinks=False)
    except OSError:
        return False
    return status.st_uid == os.geteuid() and not status.st_mode & 0o022
