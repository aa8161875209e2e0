"""An engine in virtual time: the product's loop and ledgers, and nobody who computes.

1. ``wake`` begins a plan at the next event of the same moment; its end is set by the device's time.
2. A plan's steps are one run. Whatever changes who takes part in steps first cuts the run: the steps before the one
   that is under way then are taken in, this one is begun again by itself, and those after it never were.
3. What only moves free blocks cuts a run where somebody waits for blocks, for nothing else in it depends on them.
"""

from dataclasses import dataclass, replace
from typing import Protocol

from twinfer.core.errors import CapacityError
from twinfer.core.grant import Use
from twinfer.core.ids import RequestId
from twinfer.core.load import LoadReport
from twinfer.core.request import GenerationRequest
from twinfer.core.step import Draw, StepPlan, StepResult
from twinfer.core.tokens import Token
from twinfer.engine.base import StepOutcome
from twinfer.engine.ingest import IngestLedger
from twinfer.engine.lending import LendLedger
from twinfer.engine.loop import EngineLoop
from twinfer.engine.sequence import Purpose
from twinfer.engine.step_fit import StepFit, features
from twinfer.engine.step_room import told
from twinfer.engine.step_times import StepTimes
from twinfer.simulator.schedule import Event, Schedule
from twinfer.simulator.timed_run import TimedRun, timed_run

TOKEN = 0
"""Every token of every answer: what is not known of a trace's answers does not matter to anybody."""
_DRAW = Draw(TOKEN)


class Listener(Protocol):
    """Whoever wants to know what became of steps."""

    def began(self) -> None:
        """Steps begin, and have the blocks they need, or there are none to take."""
        ...

    def finished(self, run: TimedRun, outcome: StepOutcome) -> None:
        """All steps of a run are over."""
        ...


@dataclass(frozen=True, slots=True)
class Pace:
    """How steps are timed.

    Attributes:
        times: the device's.
        step_s: what the engine takes beside it for each step.
        slower: how many times as long all of it takes.
    """

    times: StepTimes
    step_s: float = 0.0
    slower: float = 1.0

    def seconds(self, plan: StepPlan, ahead: int = 0) -> float:
        """How long a step takes in all."""
        return (self.times.seconds(plan, ahead) + self.step_s) * self.slower


class VirtualEngine:
    """One engine; the schedule is its clock."""

    def __init__(
        self, loop: EngineLoop, pace: Pace, schedule: Schedule, max_parked_blocks: int, fit: StepFit | None = None
    ) -> None:
        self.loop = loop
        self._fit = fit
        self._pace = pace
        self._schedule = schedule
        self._max_parked_blocks = max_parked_blocks
        self._ingests = IngestLedger(loop)
        self._lending = LendLedger(loop.prefixes)
        self._listener: Listener | None = None
        self._run: TimedRun | None = None
        self._next: Event | None = None

    def listen(self, listener: Listener) -> None:
        """Tell this one."""
        self._listener = listener

    def slow_down(self, times: float) -> None:
        """From the next step on, all take so many times as long as they should."""
        self._cut()
        self._pace = replace(self._pace, slower=times)

    def stop(self) -> None:
        """It died: the step under way then, and all later ones, never were."""
        self._cut()
        self._listener = self._run = None
        if self._next is not None:
            self._next.cancel()

    def load(self) -> LoadReport:
        """Queues, blocks, counts and costs."""
        return told(self.loop.load(), None if self._fit is None else self._fit.cost(), self.loop.limits.step_goal_s)

    @property
    def num_held_blocks(self) -> int:
        """Blocks that somebody holds."""
        return self.loop.pool.num_live

    @property
    def open_ingests(self) -> int:
        """Handoffs under way to here."""
        return len(self._ingests)

    def generate(self, request: GenerationRequest, emitted: tuple[int, ...], foreign: str) -> None:
        """Compute both phases here."""
        self._cut()
        self.loop.submit(request, Purpose.ANSWER, self._schedule.now(), emitted, foreign)
        self.wake()

    def export(self, request: GenerationRequest) -> None:
        """Compute the prompt, and hold its KV."""
        self._check_parked()
        self._cut()
        self.loop.submit(request, Purpose.EXPORT, self._schedule.now())
        self.wake()

    def lend(self, request: GenerationRequest, num_blocks: int) -> tuple[int, ...] | None:
        """Hold a cached prefix."""
        self._check_parked()
        self._cut_if_awaited()
        return self._lending.lend(request, num_blocks, self._schedule.now())

    def release(self, request_id: RequestId) -> None:
        """Turn what is held for another worker into ordinary cache, or stop computing it."""
        if request_id in self.loop.parked:
            self._cut_if_awaited()
        else:
            self._cut()
        self.loop.cancel(request_id)
        self._lending.release(request_id)
        self.wake()

    def cancel(self, request_id: RequestId) -> None:
        """Forget an answer."""
        self._cut()
        self.loop.cancel(request_id)
        self.wake()

    def promise(self, request: GenerationRequest, foreign: str, use: Use) -> range | None:
        """Set room aside for KV to come."""
        self._cut_if_awaited()
        return self._ingests.promise(request, self._schedule.now(), foreign, use)

    def claim(self, request: GenerationRequest | None) -> None:
        """Whose room is awaited first."""
        self._cut()
        self._ingests.claim(request)
        self.wake()

    def bind(self, request_id: RequestId) -> None:
        """Turn a promise into blocks."""
        self._cut_if_awaited()
        self._ingests.bind(request_id)

    def commit(self, request_id: RequestId, first_token: Token | None) -> None:
        """The KV is here: decode on from the first token, or keep it as cache."""
        if first_token is None:
            self._cut_if_awaited()
        else:
            self._cut()
        self._ingests.bind(request_id)
        self._ingests.commit(request_id, first_token, self._schedule.now())
        self.wake()

    def withdraw(self, request_id: RequestId, *, landing: bool) -> None:
        """Give room back; nothing can land any more once a transfer was called off."""
        self._cut_if_awaited()
        self.loop.pool.cleanse(self._ingests.withdraw(request_id, landing=landing))
        self.wake()

    def wake(self) -> None:
        """There may be work."""
        if self._next is None and self._listener is not None:
            self._next = self._schedule.after(0.0, self._begin)

    def _learn(self, run: TimedRun) -> None:
        if self._fit is not None and run.plan.slices:
            ended = run.end(run.steps)
            step_s = (ended - run.started) / run.steps
            self._fit.observe(features(run.plan.slices, run.steps - 1), step_s, run.started, ended)

    def _check_parked(self) -> None:
        parked = sum(len(sequence.blocks) for sequence in self.loop.parked.values()) + self._lending.num_blocks
        if parked >= self._max_parked_blocks:
            raise CapacityError(f"{parked} KV blocks wait to be passed on already; try again later")

    def _begin(self) -> None:
        self._next = None
        now = self._schedule.now()
        plan = self.loop.begin(now, self._fit)
        if self._listener is None:
            return
        if plan is not None:
            self._set(timed_run(self._pace, plan, now) if plan.slices else TimedRun(plan, now, 1, 0.0))
        self._listener.began()

    def _set(self, run: TimedRun) -> None:
        self._run = run
        self._next = self._schedule.at(max(run.end(run.steps), self._schedule.now()), self._finish)

    def _cut(self) -> None:
        run = self._run
        if run is None or run.steps == 1:
            return
        assert self._next is not None
        self._next.cancel()
        over = run.over_at(self._schedule.now())
        if over:
            self._take_in(run.first(over))
            plan = self.loop.begin(run.end(over), self._fit)
            assert plan is not None
            run = TimedRun(plan, run.end(over), 1, run.step_s(over))
        self._set(run.first(1))

    def _cut_if_awaited(self) -> None:
        if self.loop.has_waiting:
            self._cut()

    def _finish(self) -> None:
        assert self._run is not None
        run, self._run, self._next = self._run, None, None
        self._take_in(run)
        if self._next is None:
            self._begin()

    def _take_in(self, run: TimedRun) -> None:
        assert self._listener is not None
        self._learn(run)
        slices, end = run.plan.slices, run.end(run.steps)
        draws = tuple(None if part.sample_index is None else _DRAW for part in slices)
        later = ((TOKEN,) * len(slices),) * (run.steps - 1)
        outcome = self.loop.finish(run.plan, StepResult(draws, later=later, later_s=end - run.end(1)), end)
        self._listener.finished(run, outcome)
