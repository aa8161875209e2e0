"""The one thread that steps an engine. Outcomes go to the event loop, once per step."""

import asyncio
import logging
import threading
from collections.abc import Callable

from twinfer.engine.base import Engine, StepOutcome

logger = logging.getLogger(__name__)
IDLE_WAIT_S = 0.25
"""An idle engine looks for overdue requests that often."""


class EngineThread:
    """Steps the engine while there is work; sleeps otherwise."""

    def __init__(self, engine: Engine, loop: asyncio.AbstractEventLoop) -> None:
        self._engine = engine
        self._loop = loop
        self._wake = threading.Event()
        self._stopping = False
        self._thread: threading.Thread | None = None

    @property
    def alive(self) -> bool:
        """Whether it can still step."""
        return self._thread is not None and self._thread.is_alive()

    def start(self, deliver: Callable[[StepOutcome], None], crashed: Callable[[BaseException], None]) -> None:
        """Begin to step.

        Args:
            deliver: called on the loop with each outcome that holds something.
            crashed: called on the loop if the engine raises; the thread has ended then.
        """
        self._thread = threading.Thread(target=self._run, args=(deliver, crashed), name="engine", daemon=True)
        self._thread.start()

    def wake(self) -> None:
        """There may be work. From any thread."""
        self._wake.set()

    def stop(self) -> None:
        """Return once the step under way has ended."""
        self._stopping = True
        self._wake.set()
        if self._thread is not None:
            self._thread.join()

    def _run(self, deliver: Callable[[StepOutcome], None], crashed: Callable[[BaseException], None]) -> None:
        try:
            while not self._stopping:
                self._wake.clear()
                outcome = self._engine.step()
                if outcome is None:
                    self._wake.wait(IDLE_WAIT_S)
                elif outcome != StepOutcome():
                    self._loop.call_soon_threadsafe(deliver, outcome)
        except Exception as error:  # the thread's outermost loop: the worker must learn of it and end
            logger.exception("the engine failed")
            self._loop.call_soon_threadsafe(crashed, error)
