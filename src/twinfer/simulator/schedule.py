"""Virtual time: what happens when, and nothing between."""

import heapq
from collections.abc import Callable
from typing import Any


class Event:
    """A call to come; it may be called off."""

    __slots__ = ("args", "call")

    def __init__(self, call: Callable[..., object], args: tuple[Any, ...]) -> None:
        self.call: Callable[..., object] | None = call
        self.args = args

    def cancel(self) -> None:
        """Let it not happen, and let go of what it would have needed."""
        self.call, self.args = None, ()


class Schedule:
    """A clock that moves from event to event; those of one moment happen in the order in which they were set."""

    def __init__(self) -> None:
        self._now = 0.0
        self._queue: list[tuple[float, int, Event]] = []
        self._number = 0

    def now(self) -> float:
        """Seconds since the trace began."""
        return self._now

    def at(self, moment: float, call: Callable[..., object], *args: object) -> Event:
        """Call then; never in the past."""
        if moment < self._now:
            raise ValueError(f"{moment} s lies before now, {self._now} s")
        event = Event(call, args)
        self._number += 1
        heapq.heappush(self._queue, (moment, self._number, event))
        return event

    def after(self, seconds: float, call: Callable[..., object], *args: object) -> Event:
        """Call so much later."""
        return self.at(self._now + seconds, call, *args)

    def stop(self) -> None:
        """Let nothing more happen."""
        self._queue.clear()

    def run(self) -> None:
        """Let everything happen until nothing is left to, or somebody stops it."""
        while self._queue:
            moment, _, event = heapq.heappop(self._queue)
            if event.call is not None:
                self._now = moment
                event.call(*event.args)
