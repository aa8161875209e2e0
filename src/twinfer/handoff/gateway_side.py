"""The gateway's side of one request, as a pure state machine: plan, reserve, dispatch, and what to do when a leg fails.

    PLANNED ──reserve──> RESERVED ──grant, prefill sent──> DISPATCHED ──token──> RUNNING ──last token──> DONE
       │ │                 └──grant──> FETCHING ──prefill sent┘ │                  │
       │ └───────────────generate (aggregated)────────────────┘ │                  │
       └────────────────<────── RECOVERING <──────a leg failed──┴──────────────────┘
                                    └──attempts or time used up──> FAILED

1. A route is planned. Aggregated: the decode worker gets the request. Disaggregated: it reserves first.
2. The grant tells how much of the prompt the decode worker has already; when too little is left to be worth a
   handoff, the request is generated there instead. When it has much that the prefill worker lacks, that is fetched
   first, within half a lease, so that the grant outlives it; a fetch that fails costs nothing but that time.
3. Tokens are released in index order, each once. The decode worker repeats token 0, which must be the same one: a
   sequence is a pure function of request and emitted tokens, so a difference is an error, not a choice.
4. Two workers that cannot pass KV to each other are a pair not to be tried again, and no failure of either: the
   request is planned once more.
5. When a leg fails the other leg is cancelled and the request is planned again with what was emitted, without the
   worker that failed, a bounded number of times. The error a client sees is that of the leg that failed first. What was
   decoded is computed again like a prompt, where it goes on: after a handoff it would be decoded again, step by step.
   A plan whose worker was gone before it could be asked never began, and does not count.
6. When the decode worker dies before it took over, the prefill worker keeps the KV and another decode worker is granted
   it, as the next attempt at the same handoff: nothing is computed twice.
7. Every other attempt has its own request id on the wire, so a late message of an earlier one is nobody's.
8. From its first token on an answer belongs to the weights that drew it: only workers that have the same go on with it.
"""

from dataclasses import dataclass, field, replace
from enum import StrEnum

import msgspec

from twinfer.core.capabilities import Fingerprint
from twinfer.core.config import HandoffConfig
from twinfer.core.errors import CapacityError, DeadlineExceeded, EngineFailure, TwinferError, WorkerLost
from twinfer.core.grant import Grant
from twinfer.core.ids import RequestId, WorkerId
from twinfer.core.messages import Busy, Cancel, Failed, FailureKind, Generate, Granted, Prefill, Refused, Reserve
from twinfer.core.request import GenerationRequest
from twinfer.core.route import Route
from twinfer.core.tokens import Token
from twinfer.handoff.gateway_actions import Emit, End, GatewayAction, Mismatch, Passing, Plan, Replan, Send
from twinfer.handoff.gateway_fetch import PrefixFetch

FETCH_SHARE = 0.5
"""Part of a lease that a fetch may take."""

WAIT_S = 0.2
"""Between looks for a worker that may come."""
LISTEN_S = 0.1
"""Before planning again after two workers lost each other: if one of them died, the gateway hears of it meanwhile."""


class GatewayState(StrEnum):
    """Where a request is, seen from its gateway."""

    PLANNED = "planned"
    RESERVED = "reserved"
    FETCHING = "fetching"
    DISPATCHED = "dispatched"
    RUNNING = "running"
    RECOVERING = "recovering"
    DONE = "done"
    FAILED = "failed"


ENDED = frozenset({GatewayState.DONE, GatewayState.FAILED})
UNPLANNED = frozenset({GatewayState.PLANNED, GatewayState.RECOVERING})


@dataclass(slots=True)
class GatewayRequest:
    """One generation, from its gateway's side.

    Attributes:
        request: what was asked; its id is the attempts' common stem.
        min_remote_tokens: uncached prompt tokens from which a handoff is worth it.
        policy: attempts, and how long to wait for room.
        forced: the client chose the route; it is not second-guessed.
        journal: tokens released so far, for recovery.
        num_recoveries: plans made because a leg failed.
    """

    request: GenerationRequest
    min_remote_tokens: int
    policy: HandoffConfig
    forced: bool = False
    state: GatewayState = GatewayState.PLANNED
    attempt: int = 0
    num_recoveries: int = 0
    plan: Plan | None = None
    cached_tokens: int = 0
    journal: list[int] = field(default_factory=list)
    _excluded: set[WorkerId] = field(default_factory=set)
    _mismatched: set[Mismatch] = field(default_factory=set)
    _legs: set[WorkerId] = field(default_factory=set)
    _first_error: TwinferError | None = None
    _num_failures: int = 0
    _wire_number: int = 0
    _kept: Passing | None = None
    _fetch: PrefixFetch | None = None
    _grant: Grant | None = None
    _waiting_since: float | None = None
    _weights: Fingerprint | None = None

    @property
    def wire_id(self) -> RequestId:
        """The current attempt's request id on the wire."""
        return RequestId(f"{self.request.request_id}.{self._wire_number}")

    @property
    def legs(self) -> frozenset[WorkerId]:
        """Workers that hold something for the current attempt."""
        return frozenset(self._legs)

    @property
    def has_decoded(self) -> bool:
        """Whether there is output that a handoff does not pass: it carries the prompt's KV and the first token."""
        return len(self.journal) > 1

    @property
    def weights(self) -> Fingerprint | None:
        """Whose answer this is; ``None`` as long as it may be anybody's."""
        return self._weights

    @property
    def ended(self) -> bool:
        """Whether the terminal outcome is decided."""
        return self.state in ENDED

    def planned(self, plan: Plan) -> list[GatewayAction]:
        """The router chose; a second choice for the same attempt changes nothing."""
        if self.state not in UNPLANNED:
            return []
        self.attempt += 1
        self.plan = plan
        passing = plan.passing
        actions: list[GatewayAction] = []
        if passing is None or passing != self._kept:
            actions += self._cancel_legs()
            self._wire_number += 1
        self._kept = self._fetch = None
        self._legs.add(plan.route.decode)
        request = msgspec.structs.replace(self.request, request_id=self.wire_id)
        if passing is None:
            return [*actions, *self._generate(request)]
        self.state = GatewayState.RESERVED
        source = (passing.source, passing.source_epoch, passing.capabilities)
        return [*actions, Send(plan.route.decode, Reserve(request, passing.handoff, self.attempt, *source))]

    def unplannable(self, error: TwinferError, now: float, *, awaited: bool = True) -> list[GatewayAction]:
        """The router found no route.

        Args:
            awaited: some worker of the configuration is not there, and may come. Otherwise only a request that had a
                route before waits for another one.
        """
        if self.state not in UNPLANNED:
            return []
        hopeless = self.attempt == 0 and not awaited
        if hopeless or not isinstance(error, CapacityError) or self._out_of_patience(now):
            return self._fail(error)
        return [Replan(frozenset(self._excluded), WAIT_S, "waiting", self._kept)]

    def unreached(self, worker: WorkerId) -> list[GatewayAction]:
        """A worker was gone before it could be asked for its part."""
        if self.ended or worker not in self._legs:
            return []
        self._legs.discard(worker)
        return [*self._cancel_legs(), self._again("unreached")]

    def hear(self, worker: WorkerId, message: Granted | Busy | Refused | Failed, now: float) -> list[GatewayAction]:
        """A worker speaks of the current attempt or its fetch; what it says of others is nobody's."""
        if self._fetch is not None and message.request_id == self._fetch.request_id:
            return self._go_on(self._fetch.heard(message))
        if message.request_id != self.wire_id:
            return []
        if isinstance(message, Granted):
            return self.granted(message.grant, message.cached_tokens, message.host_tokens)
        if isinstance(message, Busy):
            return self.busy(worker, message, now)
        if isinstance(message, Refused):
            return self.refused(worker, message.reason, incompatible=message.incompatible)
        return self.failed(worker, message.kind, message.reason)

    def granted(self, grant: Grant, cached_tokens: int, host_tokens: int = 0) -> list[GatewayAction]:
        """The decode worker promised room; it could compute on from what it has, and lend that."""
        if self.state is not GatewayState.RESERVED or self.plan is None or self.plan.passing is None:
            return []
        self.cached_tokens = cached_tokens
        decode, prefill = self.plan.route.decode, self.plan.passing.source
        request = msgspec.structs.replace(self.request, request_id=self.wire_id)
        has_tokens = cached_tokens + host_tokens
        if len(self.request.prompt) - has_tokens < self.min_remote_tokens and not self.forced:
            reason = f"{has_tokens} of {len(self.request.prompt)} prompt tokens are cached on {decode}"
            provenance = self.plan.passing.capabilities.provenance
            self.plan = Plan(Route(decode, None, reason), weights=self.plan.weights)
            return [Send(decode, Cancel(self.wire_id)), *self._generate(request, provenance)]
        self._legs.add(prefill)
        self._grant = grant
        fetching = self.plan.fetching
        if fetching is None or not fetching.pays(has_tokens):
            return self._prefill()
        within_s = FETCH_SHARE * self.policy.lease_s
        self._fetch = PrefixFetch.of(request, fetching, prefill, has_tokens, within_s)
        self.state = GatewayState.FETCHING
        return self._fetch.begin()

    def fetch_done(self, worker: WorkerId, fetch: RequestId) -> list[GatewayAction]:
        """A worker finished its part of a fetch."""
        if self._fetch is None or self._fetch.request_id != fetch:
            return []
        return self._go_on(self._fetch.done(worker))

    def fetch_overdue(self, fetch: RequestId) -> list[GatewayAction]:
        """A fetch takes too long."""
        if self._fetch is None or self._fetch.request_id != fetch:
            return []
        return self._go_on(self._fetch.end("overdue"))

    def tokens(self, tokens: tuple[Token, ...]) -> list[GatewayAction]:
        """A worker drew tokens for the current attempt; nobody can during a fetch."""
        if self.ended or self.state is GatewayState.FETCHING:
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
        if self.state is GatewayState.DISPATCHED:  # a source that is kept for another decode worker may draw meanwhile
            self.state = GatewayState.RUNNING
        self._waiting_since = None
        if self._weights is None and self.plan is not None:
            self._weights = self.plan.weights
        actions: list[GatewayAction] = [Emit(tuple(fresh))]
        return actions + (self._end(None) if fresh[-1].finish is not None else [])

    def busy(self, worker: WorkerId, message: Busy, now: float) -> list[GatewayAction]:
        """A worker has no room now; waiting for some is no failed attempt, but has its own bound.

        An answer that has begun waits for as long as its deadline lets it: workers that change their roles hand it
        back, perhaps one after the other, and none of them may end it.
        """
        if self.ended or worker not in self._legs:
            return []
        if not self.journal and self._out_of_patience(now, message.waited_s):
            error = CapacityError(f"worker {worker} has no free capacity; try again later", message.retry_after_s)
            return self._fail(error)
        self._legs.discard(worker)
        return [*self._cancel_legs(), self._again("busy", message.retry_after_s)]

    def refused(self, worker: WorkerId, reason: str, *, incompatible: bool = False) -> list[GatewayAction]:
        """A worker cannot do it, however often asked; ``incompatible``: but another pair can."""
        if incompatible:
            return self._pair_failed(worker, reason)
        return self._leg_failed(worker, "refused", EngineFailure(f"worker {worker} refused the request: {reason}"))

    def failed(self, worker: WorkerId, kind: FailureKind, reason: str) -> list[GatewayAction]:
        """A worker gave its part up."""
        if kind is FailureKind.DEADLINE:
            return [] if self.ended else self._fail(DeadlineExceeded(f"worker {worker}: {reason}"))
        if kind is FailureKind.INCOMPATIBLE:
            return self._pair_failed(worker, reason)
        return self._leg_failed(worker, kind.value, EngineFailure(f"worker {worker}: {reason}"))

    def lost(self, worker: WorkerId) -> list[GatewayAction]:
        """A worker can no longer be reached, or is another incarnation now."""
        error = WorkerLost(f"worker {worker} was lost while it held this request")
        passing = self.plan.passing if self.plan is not None else None
        unused = self.state is GatewayState.FETCHING or passing is None or passing.source not in self._legs
        if passing is None or passing.source == worker or unused:
            return self._leg_failed(worker, "lost", error)
        return self._sink_lost(worker, passing, error)

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
        actions = self._cancel_legs()
        self.state = GatewayState.FAILED
        return actions

    def _go_on(self, actions: list[GatewayAction]) -> list[GatewayAction]:
        """The prompt goes to the prefill worker once the fetch is over, whatever came of it."""
        if self.state is not GatewayState.FETCHING or self._fetch is None or self._fetch.outcome is None:
            return actions
        if self._fetch.outcome == "fetched" and self.plan is not None:
            route = self.plan.route
            reason = f"{route.reason}; its beginning was fetched from {route.decode}"
            self.plan = replace(self.plan, route=msgspec.structs.replace(route, reason=reason))
        return [*actions, *self._prefill()]

    def _prefill(self) -> list[GatewayAction]:
        assert self.plan is not None
        assert self.plan.passing is not None
        assert self._grant is not None
        self.state = GatewayState.DISPATCHED
        request = msgspec.structs.replace(self.request, request_id=self.wire_id)
        return [Send(self.plan.passing.source, Prefill(request, self._grant))]

    def _generate(self, request: GenerationRequest, provenance: str = "") -> list[GatewayAction]:
        assert self.plan is not None
        self.state = GatewayState.DISPATCHED
        return [Send(self.plan.route.decode, Generate(request, tuple(self.journal), provenance))]

    def _pair_failed(self, worker: WorkerId, reason: str) -> list[GatewayAction]:
        if self.ended or worker not in self._legs:
            return []
        route = self.plan.route if self.plan is not None else None
        pair = None if route is None or route.prefill is None else Mismatch(route.prefill, route.decode)
        if pair is None or pair in self._mismatched:
            error = EngineFailure(f"worker {worker} cannot take part: {reason}")
            return self._leg_failed(worker, FailureKind.INCOMPATIBLE.value, error)
        self._mismatched.add(pair)
        self._legs.discard(worker)
        return [*self._cancel_legs(), pair, self._again(FailureKind.INCOMPATIBLE)]

    def _leg_failed(self, worker: WorkerId, reason: str, error: TwinferError) -> list[GatewayAction]:
        if self.ended or worker not in self._legs:
            return []
        if self._kept is not None and worker == self._kept.source:
            return self._kept_no_more(self._kept, reason)
        if not self._count_failure(worker, error):
            return self._fail(error)
        return [*self._cancel_legs(), self._again(reason, LISTEN_S if reason == FailureKind.UNREACHABLE else 0.0)]

    def _sink_lost(self, worker: WorkerId, passing: Passing, error: TwinferError) -> list[GatewayAction]:
        """The decode worker died before it took over: its source keeps what it computed for another one."""
        if self.ended or worker not in self._legs:
            return []
        if not self._count_failure(worker, error):
            return self._fail(error)
        self._kept = passing
        self.state = GatewayState.RECOVERING
        return [Replan(frozenset(self._excluded), 0.0, "lost", passing)]

    def _kept_no_more(self, kept: Passing, reason: str) -> list[GatewayAction]:
        """The source let go of what it kept for another decode worker; that one has not been chosen, so none failed."""
        self._legs.discard(kept.source)
        self._kept = None
        return [*self._cancel_legs(), self._again(reason)]

    def _again(self, reason: str, pause_s: float = 0.0) -> Replan:
        self.state = GatewayState.RECOVERING
        return Replan(frozenset(self._excluded), pause_s, reason)

    def _count_failure(self, worker: WorkerId, error: TwinferError) -> bool:
        """Whether there may be another attempt."""
        self._first_error = self._first_error or error
        self._excluded.add(worker)
        self._legs.discard(worker)
        self._num_failures += 1
        self.num_recoveries += self._num_failures < self.policy.max_attempts
        return self._num_failures < self.policy.max_attempts

    def _out_of_patience(self, now: float, waited_s: float = 0.0) -> bool:
        if self._waiting_since is None:
            self._waiting_since = now - waited_s
        return now - self._waiting_since >= self.policy.max_busy_s

    def _fail(self, error: TwinferError) -> list[GatewayAction]:
        return [*self._cancel_legs(), *self._end(self._first_error or error)]

    def _end(self, error: TwinferError | None) -> list[GatewayAction]:
        self.state = GatewayState.DONE if error is None else GatewayState.FAILED
        return [End(error)]

    def _cancel_legs(self) -> list[GatewayAction]:
        legs, self._legs = sorted(self._legs), set()
        fetch = [] if self._fetch is None else self._fetch.end("abandoned")
        return [*(Send(worker, Cancel(self.wire_id)) for worker in legs), *fetch]
