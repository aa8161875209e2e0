"""Workers come and go at run time, as the registry tells."""

import asyncio
from collections.abc import Collection
from pathlib import Path

from twinfer.cluster.registry import read_registry
from twinfer.core.ids import WorkerId
from twinfer.gateway.fleet import Fleet

LOOK_S = 0.25


async def follow_registry(fleet: Fleet, directory: Path, configured: Collection[WorkerId], *, encrypted: bool) -> None:
    """Dial who is new, and forget who left, until cancelled; workers of the configuration stay as they are."""
    joined: dict[WorkerId, str] = {}
    while True:
        there = await asyncio.to_thread(read_registry, directory, encrypted=encrypted)
        there = {worker: address for worker, address in there.items() if worker not in configured}
        for worker in [worker for worker, address in joined.items() if there.get(worker) != address]:
            if await fleet.forget(worker):
                del joined[worker]
        for worker in [worker for worker in there if worker not in joined]:
            fleet.join(worker, there[worker])
            joined[worker] = there[worker]
        await asyncio.sleep(LOOK_S)
