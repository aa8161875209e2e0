"""Certificates that are replaced while a process runs: it shows the new ones on connections that begin afterwards.

1. The files are looked at every few seconds. When one has changed, all are read again.
2. What peers would refuse is not taken: the process goes on with what it has, says so once, and reads them again each
   time. So files may be replaced one after the other, and ahead of their time.
3. Connections that are there stay as they are, whatever becomes of their certificates.
"""

import asyncio
import contextlib
import logging
import os
from collections.abc import AsyncIterator, Sequence
from typing import Protocol

from twinfer.core.errors import ConfigError

LOOK_S = 5.0

logger = logging.getLogger(__name__)


class Renewable(Protocol):
    """What was read from the files."""

    def renew(self) -> bool:
        """Read them again; whether they had changed.

        Raises:
            ConfigError: what is in them cannot be used; then all stays as it was.
        """
        ...


class Renewal:
    """Watches files.

    Args:
        paths: all that ``shown`` is read from.
    """

    def __init__(self, shown: Renewable, paths: Sequence[str]) -> None:
        self._shown = shown
        self._paths = paths
        self._seen: list[tuple[int, int] | None] = []  # they may have changed since they were first read
        self._refusal = ""

    def look(self) -> bool:
        """Read them again if one has changed, or was of no use; whether they were renewed."""
        stamps = self._stamps()
        if stamps == self._seen and not self._refusal:
            return False
        self._seen = stamps
        try:
            renewed = self._shown.renew()
        except ConfigError as error:
            if str(error) != self._refusal:
                logger.warning("the certificate stays as it was, since the new one cannot be used: %s", error)
            self._refusal = str(error)
            return False
        self._refusal = ""
        if renewed:
            logger.info("the certificate was renewed from %s: new connections show it", ", ".join(self._paths))
        return renewed

    def _stamps(self) -> list[tuple[int, int] | None]:
        """Which file is there, and since when; a path may become another file's name."""
        return [_stamp(path) for path in self._paths]


@contextlib.asynccontextmanager
async def renewed(shown: Renewable | None, paths: Sequence[str]) -> AsyncIterator[None]:
    """Watch the files while the body runs; where nothing is shown there is nothing to see."""
    if shown is None:
        yield
        return
    watching = asyncio.create_task(_watch(Renewal(shown, paths)))
    try:
        yield
    finally:
        watching.cancel()


async def _watch(renewal: Renewal) -> None:
    while True:
        await asyncio.sleep(LOOK_S)
        await asyncio.to_thread(renewal.look)


def _stamp(path: str) -> tuple[int, int] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns
