"""The one thread on which KV is copied and hashed: it releases the GIL there, and takes what it is given in turn."""

import logging
import threading
from collections.abc import Callable
from functools import partial

from twinfer.core.turns import TurnQueue

logger = logging.getLogger(__name__)


class Transfers:
    """Runs calls one at a time, by the rank of the request that they are for; those of one rank in order."""

    def __init__(self) -> None:
        self._queue: TurnQueue[Callable[[], None]] = TurnQueue()
        self._changed = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="transfer", daemon=True)
        self._thread.start()

    def __call__(self, rank: int, call: Callable[..., None], *args: object) -> None:
        """Return at once; from any thread. After the end it does nothing."""
        with self._changed:
            self._queue.append(partial(call, *args), rank)
            self._changed.notify()

    def drop(self) -> None:
        """Begin nothing more."""
        with self._changed:
            self._closed = True
            self._changed.notify()

    def close(self) -> None:
        """Return once the call under way has ended; those that wait are dropped."""
        self.drop()
        self._thread.join()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._closed or bool(self._queue))
                if self._closed:
                    return
                call = self._queue.take()
            try:
                call()
            except Exception:  # the thread's outermost loop: this handoff ends with its lease, others go on
                logger.exception("a transfer failed")
