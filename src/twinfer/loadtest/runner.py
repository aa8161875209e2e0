"""Carry out a load: begin sessions when they are due, ask their turns one after the other, keep every record."""

import asyncio
import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from twinfer.core.clock import Clock
from twinfer.loadtest.api import Question
from twinfer.loadtest.arrivals import LoadSpec, timed
from twinfer.loadtest.ask import Endpoint, ask
from twinfer.loadtest.record import Record
from twinfer.loadtest.words import Passage, Writer
from twinfer.loadtest.work import Session, Turn

MAX_FAILURES = 50
"""As many errors one after the other end a run: the endpoint is gone."""


@dataclass(slots=True)
class Progress:
    """What is known while a run goes on.

    Attributes:
        records: of requests that ended, in the order in which they did.
        in_flight: requests under way.
        planned_s: how long requests are sent, as far as that is known.
        stopped: why it ended before its time; "" if it did not.
    """

    records: list[Record] = field(default_factory=list)
    in_flight: int = 0
    planned_s: float | None = None
    stopped: str = ""


class Runner:
    """One run.

    Args:
        endpoint: whom to ask.
        writer: of the prompts.
        load: when.
        pause_s: between an answer and the next turn.
        clock: for all moments.
    """

    def __init__(self, endpoint: Endpoint, writer: Writer, load: LoadSpec, pause_s: float, clock: Clock) -> None:
        self._endpoint = endpoint
        self._writer = writer
        self._load = load
        self._pause_s = pause_s
        self._clock = clock
        self._start_s = clock.now()
        self._failures = 0
        self._issuing: asyncio.Task[None] | None = None
        self.progress = Progress(planned_s=load.max_s)

    @property
    def elapsed_s(self) -> float:
        """Since the run began."""
        return self._clock.now() - self._start_s

    async def run(self, sessions: Iterable[Session]) -> Progress:
        """Ask everything; what was asked by then is kept if this is cancelled."""
        self._start_s = self._clock.now()
        work = self._closed(sessions) if self._load.mode == "closed" else self._open(sessions)
        self._issuing = asyncio.create_task(work)
        try:
            await self._issuing
        except asyncio.CancelledError:
            if not self.progress.stopped:
                self.progress.stopped = "it was interrupted"
        return self.progress

    def stop(self, reason: str) -> None:
        """End early."""
        if self._issuing is not None and not self.progress.stopped:
            self.progress.stopped = reason
            self._issuing.cancel()

    async def _open(self, sessions: Iterable[Session]) -> None:
        async with asyncio.TaskGroup() as group:
            for due_s, session in timed(self._load, sessions):
                if (wait_s := due_s - self.elapsed_s) > 0:
                    await asyncio.sleep(wait_s)
                group.create_task(self._play(session, due_s))

    async def _closed(self, sessions: Iterable[Session]) -> None:
        queue = iter(itertools.islice(sessions, self._load.max_sessions))
        async with asyncio.TaskGroup() as group:
            for _ in range(self._load.concurrency):
                group.create_task(self._user(queue))

    async def _user(self, queue: Iterator[Session]) -> None:
        free_s = 0.0
        while self._load.max_s is None or self.elapsed_s < self._load.max_s:
            session = next(queue, None)
            if session is None:
                return
            free_s = await self._play(session, free_s or self.elapsed_s)

    async def _play(self, session: Session, due_s: float) -> float:
        """All turns of a session; returns when the last one ended."""
        said: list[str] = []
        for number, turn in enumerate(session.turns):
            if number:
                due_s += self._pause_s
                await asyncio.sleep(max(0.0, due_s - self.elapsed_s))
            said.append(self._text(turn))
            record = Record(session.number, number, due_s, 0.0, warmup=due_s < self._load.warmup_s)
            self.progress.in_flight += 1
            try:
                answer = await ask(self._endpoint, Question(said, turn.max_tokens), record, self._clock, self._start_s)
            finally:
                self.progress.in_flight -= 1
            self._note(record)
            due_s = record.end_s
            if record.error is not None:
                break
            said.append(answer)
        return due_s

    def _text(self, turn: Turn) -> str:
        return self._writer.text(turn.prompt) if isinstance(turn.prompt, Passage) else turn.prompt

    def _note(self, record: Record) -> None:
        self.progress.records.append(record)
        self._failures = self._failures + 1 if record.error is not None else 0
        if self._failures == MAX_FAILURES:
            self.stop(f"the last {MAX_FAILURES} requests failed: {record.error}, {record.message}")
