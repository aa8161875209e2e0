"""The sink's half of safety: which handoffs may land bytes, and how a pull is stopped for certain.

1. ``admit`` opens a handoff. A pull of another is refused, also one that was queued before a fence and starts after.
2. ``run`` registers a pull for as long as it may write; it looks at ``check`` between any two pieces it writes.
3. ``fence`` closes the handoff, wakes its pulls out of whatever they wait for, and returns when all have left.
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeAlias

from twinfer.core.errors import TransportError
from twinfer.core.ids import HandoffId


class RunningPull:
    """One pull under way: its deadline, and the means to stop it. Safe from any thread."""

    def __init__(self, title: str, deadline: float) -> None:
        self._title = title
        self._deadline = deadline
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._cause = ""
        self._wakers: list[Callable[[], object]] = []

    def check(self) -> None:
        """Go on only if this returns.

        Raises:
            TransportError: the pull was fenced or has failed elsewhere, or its deadline has passed.
        """
        if self._stopped.is_set() or time.monotonic() >= self._deadline:
            raise self.fail("its deadline passed")

    def seconds_left(self) -> float:
        """Time until the deadline, above zero; raises as ``check`` does."""
        self.check()
        return max(self._deadline - time.monotonic(), 1e-6)

    def sleep(self, seconds: float) -> None:
        """Wait, but not past the pull's end; raises as ``check`` does."""
        self._stopped.wait(min(seconds, self.seconds_left()))
        self.check()

    def fail(self, cause: str) -> TransportError:
        """Stop all threads of this pull; what to raise. The first cause counts."""
        with self._lock:
            if not self._stopped.is_set():
                self._cause = cause
                self._stopped.set()
                for waker in self._wakers:
                    waker()
        return TransportError(f"{self._title} failed: {self._cause}")

    def when_stopped(self, waker: Callable[[], object]) -> None:
        """Call this when the pull fails, or now if it has; it must neither block nor raise."""
        with self._lock:
            self._wakers.append(waker)
            if self._stopped.is_set():
                waker()

    def finish(self) -> None:
        """Nothing can stop it any more, so no waker is called after this; raises as ``check`` does."""
        self.check()
        with self._lock:
            self._wakers.clear()
        self.check()


Pace: TypeAlias = Callable[[int, RunningPull], None]
"""Called after so many bytes of a pull have landed; may wait with ``RunningPull.sleep`` to slow it down."""


class PullGate:
    """Admitted handoffs and running pulls of one sink."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._admitted: set[HandoffId] = set()
        self._running: dict[HandoffId, set[RunningPull]] = {}
        self._closed = False

    def admit(self, handoff: HandoffId) -> None:
        """Let pulls of this handoff run."""
        with self._changed:
            if self._closed:
                raise TransportError(f"handoff {handoff} cannot be admitted: this sink is closed")
            self._admitted.add(handoff)

    @contextmanager
    def run(self, handoff: HandoffId, peer: str, deadline: float) -> Iterator[RunningPull]:
        """The body may write into the pull's destinations; after it nothing may.

        Raises:
            TransportError: the handoff is not admitted.
        """
        pull = RunningPull(f"the pull of handoff {handoff} from {peer}", deadline)
        with self._changed:
            if handoff not in self._admitted:
                raise TransportError(f"handoff {handoff} is not admitted here, or not any more: nothing is pulled")
            self._running.setdefault(handoff, set()).add(pull)
        try:
            yield pull
        finally:
            with self._changed:
                self._running[handoff].remove(pull)
                if not self._running[handoff]:
                    del self._running[handoff]
                    self._changed.notify_all()

    def fence(self, handoff: HandoffId) -> None:
        """Let no pull of this handoff run, and return when none does."""
        with self._changed:
            self._admitted.discard(handoff)
            for pull in self._running.get(handoff, ()):
                pull.fail("it was fenced")
            self._changed.wait_for(lambda: handoff not in self._running)

    def close(self) -> None:
        """Fence everything, for good."""
        with self._changed:
            self._closed = True
            open_handoffs = self._admitted | self._running.keys()
        for handoff in open_handoffs:
            self.fence(handoff)
