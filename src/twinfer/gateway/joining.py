"""Workers come and go at run time, as a registry or the launcher's roster tells."""

import asyncio
import logging
from collections.abc import Callable, Collection, Mapping
from pathlib import Path

from twinfer.cluster.registry import read_registry
from twinfer.core.ids import WorkerId
from twinfer.gateway.fleet import Fleet

logger = logging.getLogger(__name__)
LOOK_S = 0.25
NOBODY: Mapping[WorkerId, str] = {}


class Comings:
    """Follows one directory.

    Args:
        fleet: dials who is new, and forgets who left.
        directory: with one file for each worker.
        encrypted: whether workers may be on other machines.
        others: workers that are not this directory's to tell of, as of now; they stay as they are.
        joined: addresses of those that stood there before, and are dialled already.
    """

    def __init__(
        self,
        fleet: Fleet,
        directory: Path,
        *,
        encrypted: bool,
        others: Callable[[], Collection[WorkerId]] = tuple,
        joined: Mapping[WorkerId, str] = NOBODY,
    ) -> None:
        self._fleet = fleet
        self._directory = directory
        self._encrypted = encrypted
        self._others = others
        self._joined = dict(joined)

    async def follow(self) -> None:
        """Do so until cancelled."""
        while True:
            try:
                await self.look()
            except OSError as error:
                logger.warning("cannot see who stands in %s: %s", self._directory, error)
            await asyncio.sleep(LOOK_S)

    async def look(self) -> None:
        """Compare who stands there with who is dialled; one that is not there any more may still be draining."""
        there = await asyncio.to_thread(self._there)
        for worker in [worker for worker, address in self._joined.items() if there.get(worker) != address]:
            if await self._fleet.forget(worker):
                del self._joined[worker]
        for worker in [worker for worker in there if worker not in self._joined]:
            self._fleet.join(worker, there[worker])
            self._joined[worker] = there[worker]

    def _there(self) -> dict[WorkerId, str]:
        others = self._others()
        there = read_registry(self._directory, encrypted=self._encrypted)
        return {worker: address for worker, address in there.items() if worker not in others}


async def tell_reach(fleet: Fleet, tell: Callable[[tuple[WorkerId, ...]], None], look_s: float) -> None:
    """Tell which workers are reached, whenever they are others than before, until cancelled."""
    told: tuple[WorkerId, ...] = ()
    while True:
        present = fleet.present()
        if present != told:
            tell(present)
            told = present
        await asyncio.sleep(look_s)
