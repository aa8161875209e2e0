"""Which processes that share a directory are alive: each has a file there, locked until the kernel sees its end."""

import fcntl
import os
import uuid
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
        self._file = path.with_name(f"{path.name}.{self.name}")
        begun = path.with_name(f"{self.name}.part")
        try:
            self._descriptor = os.open(begun, os.O_CREAT | os.O_RDWR, 0o600)
            fcntl.flock(self._descriptor, fcntl.LOCK_EX)
            begun.rename(self._file)  # whoever sees it sees it locked
        except OSError as error:
            raise ConfigError(f"cannot write to {path.parent}: {error.strerror}; set usage.spool") from error

    def alive(self) -> set[str]:
        """Names of all that live, this one among them; the files of others go."""
        living = [file for file in self._others() if _is_held(file, remove=True)]
        return {self.name, *(file.name.removeprefix(f"{self._common.name}.") for file in living)}

    def misses(self) -> bool:
        """Whether somebody has died whose file is still there."""
        return not all(_is_held(file) for file in self._others())

    def close(self) -> None:
        """Leave. Safe to call again."""
        if self._descriptor >= 0:
            self._file.unlink(missing_ok=True)
            os.close(self._descriptor)
            self._descriptor = -1

    def _others(self) -> list[Path]:
        return [file for file in self._common.parent.glob(f"{self._common.name}.*") if file != self._file]


def _is_held(file: Path, *, remove: bool = False) -> bool:
    """Whether its process lives; if not, it may be removed."""
    try:
        descriptor = os.open(file, os.O_RDWR)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if remove:
            file.unlink(missing_ok=True)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False
