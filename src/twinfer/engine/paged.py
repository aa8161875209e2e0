"""Our engine: the pure loop, a runner that computes its plans, and one lock around the loop's state.

The lock is held only while deciding, never while computing, so a handoff or the reclaimer never waits for a step.
"""

import threading
from collections.abc import Callable, Sequence
from typing import Protocol

import msgspec

from twinfer.core.block_events import BlockEvents
from twinfer.core.capabilities import Capabilities
from twinfer.core.clock import Clock
from twinfer.core.errors import CapacityError
from twinfer.core.grant import Use
from twinfer.core.ids import RequestId
from twinfer.core.load import LoadReport
from twinfer.core.request import GenerationRequest
from twinfer.core.step import StepPlan, StepResult
from twinfer.core.tokens import Token
from twinfer.engine.base import StepOutcome
from twinfer.engine.host_copies import HostCopies
from twinfer.engine.host_exchange import HostExchange
from twinfer.engine.ingest import IngestLedger
from twinfer.engine.lending import LendLedger
from twinfer.engine.loop import EngineLoop
from twinfer.engine.sequence import Purpose
from twinfer.engine.step_fit import Features, StepFit, features
from twinfer.engine.step_room import told
from twinfer.kv.host_tier import HostTier

STEP_AVERAGE_WEIGHT = 0.1


class Runner(Protocol):
    """Computes plans over the KV pool: torch on some device, or an emulated device."""

    def execute(self, plan: StepPlan) -> StepResult:
        """Compute one step; blocks until its time has passed."""
        ...

    def to_host(self, blocks: Sequence[int]) -> None:
        """Make final blocks readable in the memory that KV leaves from."""
        ...

    def from_host(self, blocks: Sequence[int]) -> None:
        """Take over blocks that arrived in that memory."""
        ...


class _ChangeLock:
    """Holds the loop's state for a change, and tells afterwards that there was one; ``quiet`` is for looking only."""

    def __init__(self, changed: threading.Event) -> None:
        self.quiet = threading.Lock()
        self.changed = changed

    def __enter__(self) -> None:
        self.quiet.acquire()

    def __exit__(self, *_: object) -> None:
        self.changed.set()
        self.quiet.release()


class PagedEngine:
    """An :class:`~twinfer.engine.base.Engine` out of a loop and a runner.

    Args:
        changed: set whenever something comes from outside, so that a runner can end a run of steps early.
    """

    def __init__(
        self,
        loop: EngineLoop,
        runner: Runner,
        capabilities: Capabilities,
        clock: Clock,
        changed: threading.Event | None = None,
    ) -> None:
        self._loop = loop
        self._runner = runner
        self._capabilities = capabilities
        self._clock = clock
        self._lock = _ChangeLock(changed or threading.Event())
        self._step_s = 0.0
        self._fit: StepFit | None = None
        self._running: tuple[Features, float] | None = None
        self._host: tuple[HostExchange, HostCopies] | None = None
        self.exports = _Exports(loop, runner, clock, self._lock)
        self.ingests = _Ingests(loop, runner, clock, self._lock)

    def learn_costs(self, fit: StepFit | None) -> None:
        """Report from now on what steps cost; ``None`` where their times mean nothing."""
        self._fit = fit

    def use_host_tier(self, memory: memoryview, max_fraction: float) -> None:
        """Keep blocks that the pool lets go of in what a memory has room for beyond the pool's own; nothing without it.

        Args:
            memory: that KV leaves from and arrives in: the pool's blocks come first.
            max_fraction: share of the room that one tenant may fill.
        """
        layout, pool = self._capabilities.layout, self._loop.pool
        num_slots = memory.nbytes // layout.block_bytes - pool.num_blocks
        if num_slots > 0:
            tier = HostTier(pool.num_blocks, num_slots, max(1, int(max_fraction * num_slots)), pool.log)
            max_blocks = max(1, self._loop.limits.max_step_tokens // layout.block_tokens)
            self._loop.prefixes.host = tier
            copies = HostCopies(memory, layout.block_bytes, self._runner)
            self._host = HostExchange(self._loop, tier, max_blocks), copies

    @property
    def capabilities(self) -> Capabilities:
        """What it serves."""
        return self._capabilities

    def submit(self, request: GenerationRequest, emitted: tuple[int, ...] = (), foreign: str = "") -> None:
        """Generate here, both phases."""
        with self._lock:
            self._loop.submit(request, Purpose.ANSWER, self._clock.now(), emitted, foreign)

    def cancel(self, request_id: RequestId) -> None:
        """Forget a request; an open ingest is not a request yet and is withdrawn instead."""
        with self._lock:
            self._loop.cancel(request_id)

    def step(self) -> StepOutcome | None:
        """Compute one step, if there is one; before it, copy a few blocks from and to the host tier."""
        self._exchange()
        started = self._clock.now()
        with self._lock.quiet:
            self._lock.changed.clear()
            plan = self._loop.begin(started, self._fit)
            self._running = None if plan is None or not plan.slices else (features(plan.slices), started)
            more = self._host is not None and self._host[0].has_work
        self.ingests.look_again()
        if plan is None:
            return StepOutcome() if more else None
        result = self._runner.execute(plan) if plan.slices else StepResult(())
        now = self._clock.now()
        self._step_s += STEP_AVERAGE_WEIGHT * (now - started - self._step_s)
        with self._lock.quiet:
            self._learn(plan, result, started, now)
            outcome = self._loop.finish(plan, result, now)
        for part in outcome.exported:
            self._runner.to_host(part.blocks)
        return outcome

    def load(self) -> LoadReport:
        """Queues, blocks and counts."""
        with self._lock.quiet:
            running, now = self._running, self._clock.now()
            age = None if running is None else (running[0], now - running[1])
            cost = None if self._fit is None else self._fit.cost(age)
            load = msgspec.structs.replace(self._loop.load(), step_s=self._step_s)
            return told(load, cost, self._loop.limits.step_goal_s)

    def block_events(self, since: int) -> BlockEvents:
        """Changes in the prefix cache."""
        with self._lock.quiet:
            return self._loop.pool.events(since)

    def _exchange(self) -> None:
        if self._host is None:
            return
        exchange, copies = self._host
        with self._lock.quiet:
            plan = exchange.begin(self._clock.now())
        if plan is not None:
            filled, stored = copies.make(plan)
            with self._lock.quiet:
                exchange.finish(plan, filled, stored)

    def _learn(self, plan: StepPlan, result: StepResult, began: float, ended: float) -> None:
        self._running = None
        if self._fit is not None and plan.slices:
            later = len(result.later)
            self._fit.observe(features(plan.slices, later), (ended - began) / (1 + later), began, ended)


class _Exports:
    """The source's side."""

    def __init__(self, loop: EngineLoop, runner: Runner, clock: Clock, lock: _ChangeLock) -> None:
        self._loop = loop
        self._runner = runner
        self._lending = LendLedger(loop.prefixes)
        self._clock = clock
        self._lock = lock
        self.max_parked_blocks = loop.pool.num_blocks

    def submit(self, request: GenerationRequest) -> None:
        """Compute the prompt and hold its KV."""
        with self._lock:
            self._check_parked()
            self._loop.submit(request, Purpose.EXPORT, self._clock.now())

    def lend(self, request: GenerationRequest, num_blocks: int) -> tuple[int, ...] | None:
        """Hold a cached prefix."""
        with self._lock:
            self._check_parked()
            lent = self._lending.lend(request, num_blocks, self._clock.now())
        self._runner.to_host([block for block in lent or () if block < self._loop.pool.num_blocks])
        return lent

    def count_on_host(self, request: GenerationRequest, num_tokens: int) -> int:
        """Tokens that the host tier could lend."""
        with self._lock.quiet:
            return self._lending.count_on_host(request, num_tokens)

    def release(self, request_id: RequestId) -> None:
        """Turn what is held into ordinary cache, or cancel."""
        with self._lock:
            self._loop.cancel(request_id)
            self._lending.release(request_id)

    def generations(self, blocks: Sequence[int]) -> tuple[int, ...]:
        """How often each block was let go."""
        with self._lock.quiet:
            return self._lending.generations(blocks)

    def _check_parked(self) -> None:
        parked = sum(len(sequence.blocks) for sequence in self._loop.parked.values()) + self._lending.num_blocks
        if parked >= self.max_parked_blocks:
            raise CapacityError(f"{parked} KV blocks wait to be passed on already; try again later")


class _Ingests:
    """The sink's side."""

    def __init__(self, loop: EngineLoop, runner: Runner, clock: Clock, lock: _ChangeLock) -> None:
        self._runner = runner
        self._ledger = IngestLedger(loop)
        self._ask_again: Callable[[], None] | None = None
        self._pool = loop.pool
        self._clock = clock
        self._lock = lock

    def promise(self, request: GenerationRequest, foreign: str = "", use: Use = Use.DECODE) -> range | None:
        """Promise room for the prompt."""
        with self._lock:
            return self._ledger.promise(request, self._clock.now(), foreign, use)

    def claim(self, request: GenerationRequest | None, ask_again: Callable[[], None] | None = None) -> None:
        """Say whose room is awaited first, and whom to tell when there may be some."""
        with self._lock:
            self._ledger.claim(request)
            self._ask_again = ask_again

    def look_again(self) -> None:
        """A step begins, or might: whoever waits for room may ask again."""
        if (ask_again := self._ask_again) is not None:
            ask_again()

    def bind(self, request_id: RequestId) -> tuple[int, ...]:
        """Turn the promise into blocks."""
        with self._lock:
            return self._ledger.bind(request_id)

    def commit(self, request_id: RequestId, first_token: Token | None) -> None:
        """Decode on from the first token, or keep the blocks as cache."""
        with self._lock:
            self._runner.from_host(self._ledger.bind(request_id))
            self._ledger.commit(request_id, first_token, self._clock.now())

    def withdraw(self, request_id: RequestId, *, landing: bool) -> tuple[int, ...]:
        """Give up before commit."""
        with self._lock:
            return self._ledger.withdraw(request_id, landing=landing)

    def cleanse(self, blocks: tuple[int, ...]) -> None:
        """Free quarantined blocks."""
        with self._lock:
            self._pool.cleanse(blocks)
