"""Which processes that share a directory are alive: each has a file there, locked until the kernel sees its end."""

import fcntl
import os
import uuid
from collections.abc import Iterable
from pathlib import Path

from twinfer.core.errors import ConfigError


class Presence:
    """This process among the others.

    Args:
        path: the beginning of its file's path, the same for all; its name follows.

    Attributes:
        name: that nobody else ever had.

    Raises:
        ConfigError: the directory cannot be written to.
    """

    def __init__(self, path: Path) -> None:
        self.name = uuid.uuid4().hex
        self._common = path
        self._file = self._file_of(self.name)
        begun = path.with_name(f"{self.name}.part")
        try:
            self._descriptor = os.open(begun, os.O_CREAT | os.O_RDWR, 0o600)
            fcntl.flock(self._descriptor, fcntl.LOCK_EX)
            begun.rename(self._file)  # whoever sees it sees it locked
        except OSError as error:
            raise ConfigError(f"cannot write to {path.parent}: {error.strerror}; set usage.spool") from error

    def roll_call(self) -> tuple[set[str], set[str]]:
        """Names of all that live, this one among them, and of those missing: that ended, and are not buried."""
        living, missing = {self.name}, set[str]()
        for file in self._others():
            (living if _is_held(file) else missing).add(file.name.removeprefix(f"{self._common.name}."))
        return living, missing

    def misses(self) -> bool:
        """Whether somebody is missing."""
        return bool(self.roll_call()[1])

    def bury(self, names: Iterable[str]) -> None:
        """These are missed no more."""
        for name in names:
            self._file_of(name).unlink(missing_ok=True)

    def close(self, *, missing: bool = False) -> None:
        """Leave, to be missed by the others or not. Safe to call again."""
        if self._descriptor >= 0:
            if not missing:
                self._file.unlink(missing_ok=True)
            os.close(self._descriptor)
            self._descriptor = -1

    def _file_of(self, name: str) -> Path:
        return self._common.with_name(f"{self._common.name}.{name}")

    def _others(self) -> list[Path]:
        return [file for file in self._common.parent.glob(f"{self._common.name}.*") if file != self._file]


def _is_held(file: Path) -> bool:
    """Whether its process lives."""
    try:
        descriptor = os.open(file, os.O_RDWR)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False
