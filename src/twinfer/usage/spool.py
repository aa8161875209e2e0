"""Records that wait on disk: what a gateway could not write before it ended, for the next one to write."""

import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from twinfer.core.errors import ConfigError
from twinfer.usage.record import UsageRecord

_PATTERN = "usage-*.spool"


class Spool:
    """Files of records in a directory; each is written once, and goes when the ledger has what is in it."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def keep(self, records: Sequence[UsageRecord]) -> Path:
        """Write them to a new file.

        Raises:
            ConfigError: that is not possible.
        """
        path = self._directory / f"usage-{time.time_ns()}-{os.getpid()}.spool"
        try:
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            begun = path.with_suffix(".part")
            begun.write_bytes(msgspec.msgpack.encode(list(records)))
            begun.rename(path)
        except OSError as error:
            raise ConfigError(f"usage records cannot be kept in {self._directory}: {error.strerror}") from error
        return path

    def hand_over(self, write: Callable[[Sequence[UsageRecord]], object]) -> int:
        """Write all of them to the ledger, which takes each once, whoever else hands it over; returns how many.

        Raises:
            TwinferError: of the ledger; the file stays. Or one of the files is none of ours.
        """
        count = 0
        for path in sorted(self._directory.glob(_PATTERN)):
            try:
                records = msgspec.msgpack.decode(path.read_bytes(), type=list[UsageRecord])
            except FileNotFoundError:
                continue  # somebody else has written it
            except (OSError, msgspec.MsgspecError) as error:
                raise ConfigError(f"the usage records in {path} cannot be read: {error}; move it away") from error
            write(records)
            path.unlink(missing_ok=True)
            count += len(records)
        return count
