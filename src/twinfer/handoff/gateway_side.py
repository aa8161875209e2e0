"""The gateway's side of one request, as a pure state machine: plan, reserve, dispatch, and what to do when a leg fails.

    PLANNED ──reserve──> RESERVED ──grant, prefill sent──> DISPATCHED ──token──> RUNNING ──last token──> DONE
       │  └──generate (aggregated)──────────────────────────────┘ │                 │
       └────────────────<────── RECOVERING <──────a leg failed─────┴─────────────────┘
                                    └──attempts or time used up──> FAILED

1. A route is planned. Aggregated: the decode worker gets the request. Disaggregated: it reserves first.
2. The grant tells how much of the prompt the decode worker has already; when too little is left to be worth a
   handoff, the request is generated there instead.
3. Tokens are released in index order, each once. The decode worker repeats token 0, which must be the same one: a
   sequence is a pure function of request and emitted tokens, so a difference is an error, not a choice.
4. When a leg fails the other leg is cancelled and the request is planned again with what was emitted, without the
   worker that failed, a bounded number of times. The error a client sees is that of the leg that failed first.
5. Every attempt has its own request id on the wire, so a late message of an earlier one is nobody's.
"""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TypeAlias

import msgspec

from twinfer.core.config import HandoffConfig
from twinfer.core.errors import CapacityError, DeadlineExceeded, EngineFailure, TwinferError, WorkerLost
from twinfer.core.grant import Grant
from twinfer.core.ids import Epoch, HandoffId, RequestId, WorkerId
from twinfer.core.messages import Cancel, FailureKind, Generate, Prefill, Reserve, ToWorker
from twinfer.core.request import GenerationRequest
from twinfer.core.route import Route
from twinfer.core.tokens import Token


class GatewayState(StrEnum):
    """Where a request is, seen from its gateway."""

    PLANNED = "planned"
    RESERVED = "reserved"
    DISPATCHED = "dispatched"
    RUNNING = "running"
    RECOVERING = "recovering"
    DONE = "done"
    FAILED = "failed"


ENDED = frozenset({GatewayState.DONE, GatewayState.FAILED})


@dataclass(frozen=True, slots=True)
class Send:
    """Send to a worker."""

    worker: WorkerId
    message: ToWorker


@dataclass(frozen=True, slots=True)
class Emit:
    """Release tokens to the client."""

    tokens: tuple[Token, ...]


@dataclass(frozen=True, slots=True)
class Replan:
    """Ask the router for another route, without these workers, after a pause."""

    exclude: frozenset[WorkerId]
    pause_s: float


@dataclass(frozen=True, slots=True)
class End:
    """The one terminal outcome: an error, or ``None`` after the last token."""

    error: TwinferError | None


GatewayAction: TypeAlias = Send | Emit | Replan | End


@dataclass(frozen=True, slots=True)
class Passing:
    """What a disaggregated attempt needs besides its route: a fresh handoff id, and which start of the source."""

    handoff: HandoffId
    source: WorkerId
    source_epoch: Epoch


@dataclass(frozen=True, slots=True)
class Plan:
    """One attempt. ``passing`` is there exactly when the route is disaggregated."""

    route: Route
    passing: Passing | None = None


@dataclass(slots=True)
class GatewayRequest:
    """One generation, from its gateway's side.

    Attributes:
        request: what was asked; its id is the attempts' common stem.
        min_remote_tokens: uncached prompt tokens from which a handoff is worth it.
        policy: attempts, and how long to wait for room.
        forced: the client chose the route; it is not second-guessed.
        journal: tokens released so far, for recovery.
    """

    request: GenerationRequest
    min_remote_tokens: int
    policy: HandoffConfig
    forced: bool = False
    state: GatewayState = GatewayState.PLANNED
    attempt: int = 0
    plan: Plan | None = None
    cached_tokens: int = 0
    journal: list[int] = field(default_factory=list)
    _excluded: set[WorkerId] = field(default_factory=set)
    _legs: set[WorkerId] = field(default_factory=set)
    _first_error: TwinferError | None = None
    _num_failures: int = 0
    _busy_since: float | None = None

    @property
    def wire_id(self) -> RequestId:
        """The current attempt's request id on the wire."""
        return RequestId(f"{self.request.request_id}.{self.attempt}")

    @property
    def legs(self) -> frozenset[WorkerId]:
        """Workers that hold something for the current attempt."""
        return frozenset(self._legs)

    @property
    def ended(self) -> bool:
        """Whether the terminal outcome is decided."""
        return self.state in ENDED

    def planned(self, plan: Plan) -> list[GatewayAction]:
        """The router chose."""
        if self.ended:
            return []
        self.attempt += 1
        self.plan = plan
        self._legs = {plan.route.decode}
        request = msgspec.structs.replace(self.request, request_id=self.wire_id)
        passing = plan.passing
        if passing is None:
            return self._generate(request)
        self.state = GatewayState.RESERVED
        reserve = Reserve(request, passing.handoff, self.attempt, passing.source, passing.source_epoch)
        return [Send(plan.route.decode, reserve)]

    def unplannable(self, error: TwinferError) -> list[GatewayAction]:
        """The router found no route."""
        return [] if self.ended else self._end(self._first_error or error)

    def granted(self, grant: Grant, cached_tokens: int) -> list[GatewayAction]:
        """The decode worker promised room."""
        if self.state is not GatewayState.RESERVED or self.plan is None or self.plan.passing is None:
            return []
        self.cached_tokens = cached_tokens
        decode, prefill = self.plan.route.decode, self.plan.passing.source
        request = msgspec.structs.replace(self.request, request_id=self.wire_id)
        left = len(self.request.prompt) - cached_tokens
        if left < self.min_remote_tokens and not self.forced:
            reason = f"{cached_tokens} of {len(self.request.prompt)} prompt tokens are cached on {decode}"
            self.plan = Plan(Route(decode, None, reason))
            return [Send(decode, Cancel(self.wire_id)), *self._generate(request)]
        self.state = GatewayState.DISPATCHED
        self._legs.add(prefill)
        return [Send(prefill, Prefill(request, grant))]

    def tokens(self, tokens: tuple[Token, ...]) -> list[GatewayAction]:
        """A worker drew tokens for the current attempt."""
        if self.ended:
            return []
        fresh: list[Token] = []
        for token in tokens:
            known = len(self.journal)
            if token.index < known:
                if self.journal[token.index] != token.token_id:
                    return self._fail(EngineFailure(f"two different tokens were drawn for index {token.index}"))
                continue
            if token.index > known:
                return self._fail(EngineFailure(f"token {token.index} arrived before token {known}"))
            self.journal.append(token.token_id)
            fresh.append(token)
        if not fresh:
            return []
        self.state = GatewayState.RUNNING
        actions: list[GatewayAction] = [Emit(tuple(fresh))]
        return actions + (self._end(None) if fresh[-1].finish is not None else [])

    def busy(self, worker: WorkerId, retry_after_s: float, now: float) -> list[GatewayAction]:
        """A worker has no room now; waiting for some is no failed attempt, but has its own bound."""
        if self.ended or worker not in self._legs:
            return []
        if self._busy_since is None:
            self._busy_since = now
        if now - self._busy_since >= self.policy.max_busy_s:
            error = CapacityError(f"worker {worker} has no free capacity; try again later", retry_after_s)
            return self._fail(error)
        self._legs.discard(worker)
        actions = self._cancel_legs()
        self.state = GatewayState.RECOVERING
        return [*actions, Replan(frozenset(self._excluded), retry_after_s)]

    def refused(self, worker: WorkerId, reason: str) -> list[GatewayAction]:
        """A worker cannot do it, however often asked."""
        return self._leg_failed(worker, EngineFailure(f"worker {worker} refused the request: {reason}"))

    def failed(self, worker: WorkerId, kind: FailureKind, reason: str) -> list[GatewayAction]:
        """A worker gave its part up."""
        if kind is FailureKind.DEADLINE:
            return [] if self.ended else self._fail(DeadlineExceeded(f"worker {worker}: {reason}"))
        return self._leg_failed(worker, EngineFailure(f"worker {worker}: {reason}"))

    def lost(self, worker: WorkerId) -> list[GatewayAction]:
        """A worker can no longer be reached, or is another incarnation now."""
        return self._leg_failed(worker, WorkerLost(f"worker {worker} was lost while it held this request"))

    def overdue(self) -> list[GatewayAction]:
        """The request's own time is over."""
        if self.ended:
            return []
        return self._fail(DeadlineExceeded(f"no answer within {self.request.deadline_s:g} s; ask for fewer tokens"))

    def leg_done(self, worker: WorkerId) -> None:
        """A worker finished its part; losing it no longer matters."""
        self._legs.discard(worker)

    def client_left(self) -> list[GatewayAction]:
        """Nobody wants the answer any more."""
        if self.ended:
            return self._cancel_legs()
        self.state = GatewayState.FAILED
        return self._cancel_legs()

    def _generate(self, request: GenerationRequest) -> list[GatewayAction]:
        assert self.plan is not None
        self.state = GatewayState.DISPATCHED
        return [Send(self.plan.route.decode, Generate(request, tuple(self.journal)))]

    def _leg_failed(self, worker: WorkerId, error: TwinferError) -> list[GatewayAction]:
        if self.ended or worker not in self._legs:
            return []
        self._first_error = self._first_error or error
        self._excluded.add(worker)
        self._legs.discard(worker)
        self._num_failures += 1
        if self._num_failures >= self.policy.max_attempts:
            return self._fail(self._first_error)
        actions = self._cancel_legs()
        self.state = GatewayState.RECOVERING
        return [*actions, Replan(frozenset(self._excluded), 0.0)]

    def _fail(self, error: TwinferError) -> list[GatewayAction]:
        return [*self._cancel_legs(), *self._end(self._first_error or error)]

    def _end(self, error: TwinferError | None) -> list[GatewayAction]:
        self.state = GatewayState.DONE if error is None else GatewayState.FAILED
        return [End(error)]

    def _cancel_legs(self) -> list[GatewayAction]:
        legs, self._legs = sorted(self._legs), set()
        return [Send(worker, Cancel(self.wire_id)) for worker in legs]
