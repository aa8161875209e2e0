"""Writes things in batches beside the event loop: to a database or a file that may be slow, or away for a while.

What cannot be written waits, up to a bound. Nothing is lost silently: what finds no room is counted and logged.
"""

import asyncio
import contextlib
import logging
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Generic, TypeVar

from prometheus_client import Counter, Gauge

from twinfer.core.errors import TwinferError

log = logging.getLogger("twinfer.gateway")

Item = TypeVar("Item")


@dataclass(frozen=True, slots=True)
class Pace:
    """How things are written.

    Attributes:
        period_s: between batches, and between tries.
        batch: items in one batch at most.
        waiting: items that wait at most.
    """

    period_s: float = 0.5
    batch: int = 1000
    waiting: int = 100_000


@dataclass(frozen=True, slots=True)
class Tally:
    """Series of a writer: items by what became of them (``written``, ``lost``), and how many wait."""

    items: Counter
    waiting: Gauge


class BatchWriter(Generic[Item]):
    """A bounded queue and its writer. ``add`` is the event loop's, and never waits.

    Args:
        what: names the items in the log.
        write: keeps a batch, or raises ``TwinferError`` and keeps none of it; called from another thread.
    """

    def __init__(self, what: str, write: Callable[[Sequence[Item]], object], pace: Pace, tally: Tally) -> None:
        self._what = what
        self._write = write
        self._pace = pace
        self._tally = tally
        self._waiting: deque[Item] = deque()
        self._failing = False
        self._losing = False

    def add(self, item: Item) -> None:
        """Have it written soon."""
        if len(self._waiting) >= self._pace.waiting:
            self._tally.items.labels("lost").inc()
            if not self._losing:
                log.error("%s are lost: %d wait already and cannot be written", self._what, len(self._waiting))
            self._losing = True
            return
        self._losing = False
        self._waiting.append(item)
        self._tally.waiting.set(len(self._waiting))

    @property
    def waiting(self) -> Sequence[Item]:
        """What is not written yet."""
        return tuple(self._waiting)

    async def run(self, stop: asyncio.Event, within_s: float) -> None:
        """Write again and again until ``stop`` is set, and then for ``within_s`` at most what still waits."""
        while not stop.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._pace.period_s):
                    await stop.wait()
            await self.flush()
        last = time.monotonic() + within_s
        while self._waiting and time.monotonic() < last:
            await asyncio.sleep(min(self._pace.period_s, within_s))
            await self.flush()

    async def flush(self) -> bool:
        """Write all that waits; false where that failed, and the rest waits on."""
        while self._waiting:
            batch = list(islice(self._waiting, self._pace.batch))
            try:
                await asyncio.to_thread(self._write, batch)
            except TwinferError as error:
                if not self._failing:
                    log.error("%s cannot be written, and %d wait: %s", self._what, len(self._waiting), error)
                self._failing = True
                return False
            for _ in batch:
                self._waiting.popleft()
            self._tally.items.labels("written").inc(len(batch))
            self._tally.waiting.set(len(self._waiting))
            if self._failing:
                log.warning("%s are written again", self._what)
            self._failing = False
        return True


@contextlib.asynccontextmanager
async def writing(writer: BatchWriter[Any], within_s: float) -> AsyncIterator[None]:
    """A writer at work until the context ends, which waits for it to write the rest."""
    stop = asyncio.Event()
    task = asyncio.create_task(writer.run(stop, within_s))
    try:
        yield
    finally:
        stop.set()
        await task
