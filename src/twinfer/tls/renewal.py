"""Certificates that are replaced while a process runs: it shows the new ones on connections that begin afterwards.

1. The files are looked at every few seconds. When one has changed, all are read again.
2. What peers would refuse is not taken: the process goes on with what it has, says so, and looks again. So files may be
   replaced one after the other.
3. Connections that are there stay as they are, whatever becomes of their certificates.
"""

import asyncio
import contextlib
import logging
import os
from collections.abc import AsyncIterator

from twinfer.core.config import TlsConfig
from twinfer.core.errors import ConfigError
from twinfer.tls.credentials import Credentials

LOOK_S = 5.0

logger = logging.getLogger(__name__)


class Renewal:
    """Watches the files of one process's credentials."""

    def __init__(self, credentials: Credentials, config: TlsConfig) -> None:
        self._credentials = credentials
        self._paths = (config.ca, config.cert, config.key)
        self._seen = self._stamps()

    def look(self) -> bool:
        """Renew the credentials if a file has changed; whether that was done."""
        stamps = self._stamps()
        if stamps == self._seen:
            return False
        self._seen = stamps
        try:
            self._credentials.renew()
        except ConfigError as error:
            logger.warning("the certificate stays as it was, since the new one cannot be used: %s", error)
            return False
        logger.info("the certificate was renewed from %s: new connections show it", self._paths[1])
        return True

    def _stamps(self) -> list[tuple[int, int] | None]:
        """Which file is there, and since when; a path may become another file's name."""
        return [_stamp(path) for path in self._paths]


@contextlib.asynccontextmanager
async def renewed(credentials: Credentials | None, config: TlsConfig) -> AsyncIterator[None]:
    """Watch the files while the body runs; without credentials there is nothing to see."""
    if credentials is None:
        yield
        return
    watching = asyncio.create_task(_watch(Renewal(credentials, config)))
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
