"""Looks all the time whether leases end: no worker may hold anything for a peer that it has not heard of for longer."""

import asyncio
import math
import time
from collections.abc import Callable

from twinfer.chaos.watch import Scrape, Watch

LOOK_S = 0.25


class Vigil:
    """Goes on until it is cancelled.

    Args:
        watch: where to look.
        bound_s: silence that is tolerated: the lease, and what a worker may take to notice its end.
        found: told of each worker that holds something for longer, once until it is in order again.
    """

    def __init__(self, watch: Watch, bound_s: float, found: Callable[[str], None]) -> None:
        self._watch = watch
        self._bound_s = bound_s
        self._found = found
        self._excused_until: dict[str, float] = {}
        self._known: set[str] = set()

    def excuse(self, worker: str, until: float = math.inf) -> None:
        """A worker that is stopped cannot end anything; nor must it have, until this moment."""
        self._excused_until[worker] = until

    async def keep(self) -> None:
        """Look several times a second."""
        while True:
            scrape = await self._watch.scrape()
            if scrape is not None:
                self.look(scrape, time.monotonic())
            await asyncio.sleep(LOOK_S)

    def look(self, scrape: Scrape, now: float) -> None:
        """Compare what workers say of this moment with what they may."""
        late = {
            worker: silence_s
            for worker, silence_s in scrape.silence_s.items()
            if silence_s > self._bound_s and now >= self._excused_until.get(worker, 0.0)
        }
        for worker in sorted(set(late) - self._known):
            self._found(f"{worker} holds something for a peer that was last heard of {late[worker]:.1f} s ago")
        self._known = set(late)
