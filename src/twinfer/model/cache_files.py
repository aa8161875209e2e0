"""Files that several processes make and share: one maker at a time, never seen half-written, and not kept for ever."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock that goes with ``path``, against other processes and threads; waits for it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_name(f".{path.name}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield  # closing the file releases the lock, also when the process dies


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary name beside ``path`` that becomes ``path`` in one step, once all is on the disk; or goes away."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def mark_used(path: Path, now: float) -> None:
    """Note that a file is wanted, at this Unix time, if it is there and ours to touch."""
    with suppress(OSError):
        os.utime(path, ns=(int(now * 1e9), path.stat().st_mtime_ns))


def remove_unused(directory: Path, since: float) -> list[Path]:
    """Remove files that nobody wanted since this Unix time and nobody maps (``mapping.map_file``), half-made ones, too.

    Locks stay, which are empty; so does what cannot be looked at or removed. Returns what is gone.
    """
    return [path for path in sorted(directory.iterdir()) if not path.name.endswith(".lock") and _removed(path, since)]


def _removed(path: Path, since: float) -> bool:
    with suppress(OSError), path.open("r+b") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # fails where it is mapped
        times = os.fstat(file.fileno())
        if max(times.st_atime, times.st_mtime) < since:
            path.unlink()
            return True
    return False
