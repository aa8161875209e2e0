"""A partition on purpose: for a while this worker and the others cannot reach each other, though gateways reach it.

1. Beginning cuts every control stream with another worker, in both directions, as a broken network would.
2. While it lasts, new streams are refused on either side, and pulls fail that end in this time.
3. It heals by itself: sources dial again, and what was sealed meanwhile is offered again.
"""

import contextlib
from collections.abc import Iterator
from typing import Protocol

from twinfer.core.clock import Clock, MonotonicClock
from twinfer.core.errors import TransportError, TwinferError, WorkerLost

REASON = "this worker is isolated on purpose (twinfer chaos); it heals by itself"


class Cuttable(Protocol):
    """A stream with another worker."""

    def break_off(self, error: TwinferError) -> None:
        """End it now; iterating it raises the error."""
        ...


class Isolation:
    """Whether this worker is cut off. Streams belong to the event loop; ``check`` is safe from any thread."""

    def __init__(self, clock: Clock | None = None) -> None:
        self._clock = clock or MonotonicClock()
        self._until = 0.0
        self._streams: dict[int, Cuttable] = {}

    @property
    def left_s(self) -> float:
        """Seconds until it heals; 0 when nothing is cut."""
        return max(0.0, self._until - self._clock.now())

    def begin(self, seconds: float) -> None:
        """Cut everything, for that long from now or until an earlier isolation ends, whichever is later."""
        self._until = max(self._until, self._clock.now() + seconds)
        for stream in list(self._streams.values()):
            stream.break_off(WorkerLost(REASON))

    @contextlib.contextmanager
    def conversation(self, stream: Cuttable) -> Iterator[None]:
        """The body talks to another worker over this stream.

        Raises:
            WorkerLost: isolated now.
        """
        if self.left_s:
            raise WorkerLost(REASON)
        self._streams[id(stream)] = stream
        try:
            yield
        finally:
            del self._streams[id(stream)]

    def check(self) -> None:
        """See that bytes from another worker may count.

        Raises:
            TransportError: isolated now.
        """
        if self.left_s:
            raise TransportError(REASON)
