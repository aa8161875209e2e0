"""A whole benchmark: look whether somebody is there, offer the load once or at several rates, sum up."""

import asyncio
import gc
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import msgspec

from twinfer.core.clock import Clock
from twinfer.loadtest.arrivals import LoadSpec
from twinfer.loadtest.ask import Endpoint
from twinfer.loadtest.lag import LoopWatch, lag_of
from twinfer.loadtest.preflight import probe
from twinfer.loadtest.prices import Prices
from twinfer.loadtest.result import Trial
from twinfer.loadtest.runner import Progress, Runner
from twinfer.loadtest.slo import Objectives, RateSearch
from twinfer.loadtest.summary import summarise
from twinfer.loadtest.words import Writer
from twinfer.loadtest.work import Session, WorkSpec, sessions

LOOK_S = 0.5
INTERRUPTED = "it was interrupted"
SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Watcher(Protocol):
    """Who is shown how it goes."""

    def looked(self, load: LoadSpec, progress: Progress, elapsed_s: float) -> None:
        """So far."""
        ...

    def ended(self, trial: Trial) -> None:
        """A load is over."""
        ...


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be done.

    Attributes:
        work: what is asked.
        file: the trace or the prompts, if work is from one.
        objectives: what a good request keeps.
        prices: for costs.
        max_lag_s: the client's own delays allowed at p99.
        max_error_share: of the requests, for a trial to count.
        seed: of the resampling.
    """

    work: WorkSpec
    file: Path | None
    objectives: Objectives
    prices: Prices | None
    max_lag_s: float
    max_error_share: float
    seed: int


class Bench:
    """Carries out loads against one endpoint."""

    def __init__(self, endpoint: Endpoint, writer: Writer, plan: Plan, clock: Clock, watcher: Watcher) -> None:
        self._endpoint = endpoint
        self._writer = writer
        self._plan = plan
        self._clock = clock
        self._watcher = watcher
        self._runner: Runner | None = None
        self.trials: list[Trial] = []

    async def once(self, load: LoadSpec) -> Trial:
        """One load from beginning to end; Ctrl-C ends it early and keeps what was measured."""
        runner = self._runner = Runner(self._endpoint, self._writer, load, self._plan.work.pause_s, self._clock)
        todo = self._sessions()
        loop = asyncio.get_running_loop()
        for number in SIGNALS:
            loop.add_signal_handler(number, runner.stop, INTERRUPTED)
        gc.collect()
        gc.freeze()  # what is there now is not looked through again: no pauses for it
        watch = LoopWatch(self._clock)
        looking = asyncio.create_task(self._look(runner, load))
        try:
            progress = await runner.run(todo)
        finally:
            cpu_share = watch.stop()
            looking.cancel()
            gc.unfreeze()
            for number in SIGNALS:
                loop.remove_signal_handler(number)
            self._endpoint.pool.close()
        trial = self._trial(load, progress, watch.delays_s, cpu_share)
        self._writer.nonce += 1
        self.trials.append(trial)
        self._watcher.ended(trial)
        return trial

    async def search(self, load: LoadSpec) -> float | None:
        """Loads at several rates; returns the highest that holds the objectives, if one does."""
        search = RateSearch(load.rate)
        while (rate := search.next_rate()) is not None:
            trial = await self.once(msgspec.structs.replace(load, rate=rate))
            if trial.stopped == INTERRUPTED:
                break
            attained = trial.summary.attained
            held = not trial.invalid and attained is not None and attained.value >= self._plan.objectives.attainment
            search.tell(rate, held=held)
        return search.best

    async def prepare(self, words_per_token: float | None) -> None:
        """Ask two questions before anything is measured.

        Raises:
            EndpointError: nobody is there, or nobody who speaks the API.
        """
        await probe(self._endpoint, self._writer, self._clock)
        if words_per_token is not None:
            self._writer.words_per_token, self._writer.overhead_tokens = words_per_token, 0.0

    def _sessions(self) -> Iterator[Session]:
        return sessions(self._plan.work, self._plan.file)

    async def _look(self, runner: Runner, load: LoadSpec) -> None:
        while True:
            self._watcher.looked(load, runner.progress, runner.elapsed_s)
            await asyncio.sleep(LOOK_S)

    def _trial(self, load: LoadSpec, progress: Progress, delays_s: list[float], cpu_share: float) -> Trial:
        plan = self._plan
        summary = summarise(progress.records, plan.objectives, plan.prices, plan.seed)
        lag = lag_of(progress.records, delays_s, cpu_share)
        return Trial(
            load,
            summary,
            lag,
            progress.records,
            invalid=lag.complaint(plan.max_lag_s)
            or _errors(summary.error_share, plan.max_error_share)
            or ("nothing was measured" if not summary.requests else ""),
            stopped=progress.stopped,
            nonce=self._writer.nonce,
        )


def _errors(found: float, allowed: float) -> str:
    if found <= allowed:
        return ""
    return f"{found:.1%} of the requests failed, {allowed:.1%} are allowed (--max-errors)"
