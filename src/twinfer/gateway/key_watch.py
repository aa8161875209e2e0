"""Keeps a gateway's door up to date with the keys' database."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from twinfer.core.clock import MonotonicClock
from twinfer.core.config import Config
from twinfer.core.errors import ConfigError
from twinfer.gateway.auth import GuardedDoor, terms_of
from twinfer.identity.place import Place, place_of

if TYPE_CHECKING:
    from twinfer.identity.store import KeyStore

log = logging.getLogger("twinfer.gateway")


class KeyWatch:
    """Reads the database into a door. SQLAlchemy is imported when there is something to read."""

    def __init__(self, place: Place, door: GuardedDoor) -> None:
        self._place = place
        self._door = door
        self._store: KeyStore | None = None
        self._revision: int | None = None

    def look(self) -> None:
        """Read what has changed. Blocks.

        Raises:
            ConfigError: the database cannot be used.
        """
        if self._place.file is not None and not self._place.file.exists():
            if self._revision is None:
                self._door.renew(None, any_ever=False)
                return
            raise ConfigError(f"the keys' database {self._place.file} is gone; bring it back")
        if self._store is None:
            from twinfer.identity.store import KeyStore

            self._store = KeyStore(self._place)
        state = self._store.read(self._revision)
        if state is None:
            self._door.renew(None, any_ever=False)
            return
        self._revision = state.revision
        self._door.renew(state.keys, state.any_ever)

    async def follow(self, period_s: float) -> None:
        """Look again and again, until cancelled; a database that cannot be read is logged once."""
        failing = False
        while True:
            await asyncio.sleep(period_s)
            try:
                await asyncio.to_thread(self.look)
                if failing:
                    log.warning("the keys' database can be read again")
                failing = False
            except ConfigError as error:
                if not failing:
                    log.error("keys are not up to date: %s", error)
                failing = True


@contextlib.asynccontextmanager
async def watched_door(config: Config, *, shut: bool) -> AsyncIterator[GuardedDoor]:
    """A door that knows the keys, and keeps up with them until the context ends.

    Args:
        shut: whether keys are needed even before the first exists.

    Raises:
        ConfigError: the database cannot be used.
    """
    identity = config.identity
    door = GuardedDoor(terms_of(config), shut or identity.required, identity.max_stale_s, MonotonicClock())
    watch = KeyWatch(place_of(identity), door)
    await asyncio.to_thread(watch.look)
    following = asyncio.create_task(watch.follow(identity.refresh_s))
    try:
        yield door
    finally:
        following.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await following
