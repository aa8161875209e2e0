"""Drives requests over the fleet: carries out what ``handoff/gateway_side.py`` decides, and keeps the times."""

import asyncio
import time
from collections.abc import Sequence

import msgspec

from twinfer.core.config import Config
from twinfer.core.cost import prompt_work
from twinfer.core.errors import CapacityError, Forbidden, ModelNotReady, TwinferError
from twinfer.core.ids import Epoch, ModelId, RequestId, WorkerId, new_handoff_id
from twinfer.core.messages import (
    Become,
    Busy,
    Cancel,
    Failed,
    FailureKind,
    Generate,
    Granted,
    Isolate,
    Prefill,
    Refused,
    Reserve,
    TellBlocks,
    ToGateway,
)
from twinfer.core.request import GenerationRequest
from twinfer.core.route import Route, RouteKind
from twinfer.core.snapshot import ClusterSnapshot
from twinfer.core.tokens import Timings, Token
from twinfer.gateway.arrivals import Arrivals
from twinfer.gateway.base import Journey
from twinfer.gateway.fleet import Fleet, WorkerLink
from twinfer.gateway.lanes import Lanes
from twinfer.gateway.recovery_metrics import RecoveryMetrics
from twinfer.gateway.route_metrics import RouteMetrics
from twinfer.gateway.stamps import Stamps
from twinfer.gateway.worker_metrics import render, render_impostors
from twinfer.handoff.gateway_actions import (
    Emit,
    End,
    FetchBegan,
    FetchEnded,
    GatewayAction,
    Mismatch,
    Passing,
    Replan,
    Send,
)
from twinfer.handoff.gateway_plan import Chosen
from twinfer.handoff.gateway_side import GatewayRequest
from twinfer.router.policy import choose_route, fetch_threshold, foreseen_s

NO_ROUTE = Route(WorkerId(""), None, "not routed")
NO_TIMINGS = Timings()
_LOADING_RETRY_S = 5.0


class FleetDispatcher:
    """A :class:`~twinfer.gateway.base.Dispatcher` over real workers."""

    def __init__(self, fleet: Fleet, config: Config) -> None:
        self._fleet = fleet
        self._config = config
        self._recovery = RecoveryMetrics()
        self._routes = RouteMetrics()
        self._lanes = Lanes(config.pool)

    def start(self, request: GenerationRequest, forced: RouteKind | None) -> "FleetGeneration":
        """Begin a request.

        Raises:
            Forbidden: the operator does not let clients choose the mode.
            ModelNotReady: the model's workers are still being started.
        """
        if forced is not None and not self._config.routing.allow_forced:
            raise Forbidden("this server does not let clients choose the route; leave x-twinfer-route out")
        if not self._fleet.has_met(request.model):
            raise ModelNotReady(f"The model {request.model} is being loaded; try again shortly.", _LOADING_RETRY_S)
        metrics = (self._recovery, self._routes)
        generation = FleetGeneration(request, forced, self._fleet, self._config, metrics, self._lanes)
        generation.begin()
        return generation

    def optimizes(self, model: ModelId) -> bool:
        """Whether a pool for low latency serves this model now."""
        return self._lanes.is_open(self._fleet.snapshot(), model)

    def foresee(self, request: GenerationRequest, forced: RouteKind | None) -> float | None:
        """Seconds to the first token by the router's prediction, if it knows what steps cost."""
        snapshot = self._lanes.narrow(self._fleet.snapshot(), request.model, request.latency)
        return foreseen_s(request, snapshot, self._config.routing, forced, self._fleet.hits(request))

    def unready(self) -> str | None:
        """Which model nobody can serve; ``None`` when each has a worker that decodes."""
        snapshot = self._fleet.snapshot()
        for model in self._config.model:
            if not any(state.identity.role.decodes for state in snapshot.serving(ModelId(model.id))):
                missing = ", ".join(self._fleet.missing()) or "none configured"
                return f"no decode worker of {model.id} is ready (waiting for: {missing})"
        return None

    async def metrics(self) -> str:
        """The workers' series, and what this gateway did to route and to recover requests."""
        workers = render(await self._fleet.reports()) + render_impostors(self._fleet.impostors.counts())
        return workers + self._recovery.render() + self._routes.render()


class FleetGeneration:
    """One request under way. The event loop's, like everything in a gateway."""

    def __init__(
        self,
        request: GenerationRequest,
        forced: RouteKind | None,
        fleet: Fleet,
        config: Config,
        metrics: tuple[RecoveryMetrics, RouteMetrics],
        lanes: Lanes,
    ) -> None:
        self._forced = forced
        self._recovery, self._routes = metrics
        self._fleet = fleet
        self._lanes = lanes
        self._routing = config.routing
        self._machine = GatewayRequest(request, config.routing.least_remote_tokens, config.handoff, forced is not None)
        self.arrivals = Arrivals()
        self._stamps = Stamps()
        self._timings: dict[WorkerId, Timings] = {}
        self._kv_byte_s = 0.0
        self._lost: set[Epoch] = set()
        self._hits: dict[WorkerId, int] = {}
        self._expected: tuple[WorkerLink, RequestId] | None = None
        self._pause: asyncio.TimerHandle | None = None
        self._patience: asyncio.TimerHandle | None = None
        self._deadline = asyncio.get_running_loop().call_later(request.deadline_s, self._overdue)

    @property
    def route(self) -> Route:
        """The path of the current attempt."""
        return self._machine.plan.route if self._machine.plan is not None else NO_ROUTE

    def begin(self) -> None:
        """Plan the first attempt."""
        self._plan(frozenset())

    def close(self) -> None:
        """Cancel on every worker that holds something."""
        self._act(self._machine.client_left())
        self._settle()

    def journey(self) -> Journey:
        """What became of it so far."""
        route = self.route
        prefill = self._timings.get(route.prefill, NO_TIMINGS) if route.prefill else NO_TIMINGS
        decode = self._timings.get(route.decode, NO_TIMINGS)
        journey = self._stamps.journey(route, prefill, decode)
        return msgspec.structs.replace(journey, kv_byte_s=self._kv_byte_s, recoveries=self._machine.num_recoveries)

    def hear(self, worker: WorkerId, message: ToGateway) -> None:
        """A worker speaks of this request."""
        now = time.monotonic()
        if isinstance(message, Granted) and message.request_id == self._machine.wire_id:
            self._stamps.granted = now
        if isinstance(message, Failed) and message.kind is FailureKind.UNREACHABLE:
            route = self.route
            if route.prefill is not None:
                self._fleet.mark_parted(route.prefill, route.decode)
        if isinstance(message, Granted | Busy | Refused | Failed):
            self._act(self._machine.hear(worker, message, now))

    def hear_tokens(self, worker: WorkerId, tokens: tuple[Token, ...], timings: Timings | None) -> None:
        """A worker drew tokens."""
        now = time.monotonic()
        if timings is not None:
            self._timings[worker] = timings
            self._kv_byte_s += timings.kv_block_s * self._fleet.block_bytes(worker)
        if tokens:
            self._stamp(worker, now)
        self._act(self._machine.tokens(tokens))
        if timings is not None and worker == self.route.decode:
            self._machine.leg_done(worker)

    def lost(self, worker: WorkerId) -> None:
        """A worker died, or its stream broke."""
        identity = self._fleet.link(worker).identity
        if identity is not None:
            self._lost.add(identity.epoch)
        self._act(self._machine.lost(worker))

    def fail(self, error: TwinferError) -> None:
        """No more tokens come; closing it cancels what the workers still do."""
        self._end(error)

    def fetch_done(self, worker: WorkerId, fetch: RequestId) -> None:
        """A worker finished its part of a fetch."""
        self._act(self._machine.fetch_done(worker, fetch))

    def _stamp(self, worker: WorkerId, now: float) -> None:
        stamps, route = self._stamps, self.route
        if not stamps.first_token:
            stamps.first_token = now
            self._routes.answered(route, now - stamps.reserve_sent)
        stamps.last_token = now
        if route.prefill is not None and worker == route.decode and not stamps.decode_began:
            stamps.decode_began = now
            self._machine.leg_done(route.prefill)

    def _plan(self, excluded: frozenset[WorkerId], keep: Passing | None = None) -> None:
        request = self._machine.request
        try:
            snapshot = self._usable()
            self._hits = self._fleet.hits(request)
            route = choose_route(request, snapshot, self._routing, self._forced, excluded, self._hits)
        except TwinferError as error:
            self._act(self._machine.unplannable(error, time.monotonic(), awaited=self._fleet.awaited()))
            return
        self._routes.chosen(route, forced=self._forced is not None)
        self._stamps.reserve_sent = time.monotonic()
        chosen = Chosen(route, snapshot, self._hits, fetch_threshold(route, snapshot, self._routing))
        plan = chosen.plan(keep, self._lost, self._machine.has_decoded, new_handoff_id)
        actions = self._machine.planned(plan)
        self._expect(None if plan.passing is keep else plan.route.prefill)
        self._act(actions)

    def _usable(self) -> ClusterSnapshot:
        """The cluster as this request may use it: in its lane, and once it has an answer, with that answer's weights.

        Raises:
            CapacityError: nobody has them now.
        """
        request, weights = self._machine.request, self._machine.weights
        snapshot = self._fleet.snapshot()
        if weights is not None:
            snapshot = snapshot.sharing(weights)
            if not snapshot.serving(request.model):
                raise CapacityError("no worker has the weights any more that this answer began with; ask again")
        return self._lanes.narrow(snapshot, request.model, request.latency)

    def _expect(self, prefill: WorkerId | None) -> None:
        """Count the prompt on its worker from now on: those that come before the decode worker's grant look there."""
        self._expect_no_more()
        if prefill is not None:
            request = self._machine.request
            self._expected = self._fleet.link(prefill), self._machine.wire_id
            self._expected[0].expected[self._machine.wire_id] = request.tier.rank, len(request.prompt)

    def _expect_no_more(self) -> None:
        """It is sent now, or will not be."""
        if self._expected is not None:
            link, wire_id = self._expected
            link.expected.pop(wire_id, None)
            self._expected = None

    def _act(self, actions: Sequence[GatewayAction]) -> None:
        for action in actions:
            if isinstance(action, Send):
                self._send(action)
            elif isinstance(action, Emit):
                self.arrivals.push(action.tokens)
            elif isinstance(action, Mismatch):
                self._fleet.mark_mismatch(action.source, action.sink)
            elif isinstance(action, FetchBegan):
                self._stamps.fetch_began = time.monotonic()
                loop = asyncio.get_running_loop()
                self._patience = loop.call_later(action.within_s, self._fetch_overdue, action.fetch)
            elif isinstance(action, FetchEnded):
                self._stamps.fetch_ended = time.monotonic()
                self._recovery.fetches.labels(action.outcome).inc()
                self._drop_patience()
            elif isinstance(action, Replan):
                self._recovery.replans.labels(action.reason).inc()
                self._expect_no_more()
                self._cancel_pause()
                loop = asyncio.get_running_loop()
                self._pause = loop.call_later(action.pause_s, self._plan, action.exclude, action.keep)
            elif isinstance(action, End):
                self._end(action.error)

    def _end(self, error: TwinferError | None) -> None:
        """The terminal outcome; where it is none, the last token has been passed on."""
        if error is not None:
            self.arrivals.fail(error)
        else:
            self.arrivals.end()
            self._fleet.book.answered(len(self._machine.journal))
            if self._machine.num_recoveries:
                self._recovery.recovered.inc()
        self._settle()

    def _send(self, action: Send) -> None:
        link, message = self._fleet.link(action.worker), action.message
        if isinstance(message, Prefill | Generate):
            self._expect_no_more()
        if isinstance(message, Prefill) and not self._is_granted(link):
            asyncio.get_running_loop().call_soon(self._unreached, action.worker, self._machine.wire_id)
            return
        if isinstance(message, Cancel):
            link.listeners.pop(message.request_id, None)
        elif not isinstance(message, Isolate | TellBlocks | Become):
            request_id = message.request.request_id
            whole = request_id == self._machine.wire_id
            entry = (self, len(message.request.prompt)) if whole else (_FetchListener(self, request_id), 0)
            link.listeners[request_id] = entry
            if whole and isinstance(message, Reserve | Generate):
                link.answering.add(request_id)
            if isinstance(message, Prefill | Generate):
                end = len(message.request.prompt)
                work = prompt_work(min(self._hits.get(action.worker, 0), end), end)
                link.sent(work, message.request.tier.rank)
        link.send(message)

    def _fetch_overdue(self, fetch: RequestId) -> None:
        self._act(self._machine.fetch_overdue(fetch))

    def _drop_patience(self) -> None:
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None

    def _is_granted(self, link: WorkerLink) -> bool:
        """Whether the source that a grant names is still there; it may have died since the route was planned."""
        passing = self._machine.plan.passing if self._machine.plan is not None else None
        return passing is not None and link.is_still(passing.source_epoch)

    def _unreached(self, worker: WorkerId, wire_id: RequestId) -> None:
        if self._machine.wire_id == wire_id:
            self._act(self._machine.unreached(worker))

    def _settle(self) -> None:
        """The terminal outcome is decided: wait for nothing more."""
        self._expect_no_more()
        self._deadline.cancel()
        self._cancel_pause()

    def _cancel_pause(self) -> None:
        if self._pause is not None:
            self._pause.cancel()
        self._drop_patience()

    def _overdue(self) -> None:
        self._act(self._machine.overdue())


class _FetchListener:
    """Listens for a generation to what its workers say of a fetch."""

    def __init__(self, generation: FleetGeneration, fetch: RequestId) -> None:
        self._generation = generation
        self._fetch = fetch

    def hear(self, worker: WorkerId, message: ToGateway) -> None:
        """A message about the fetch."""
        self._generation.hear(worker, message)

    def hear_tokens(self, worker: WorkerId, tokens: tuple[Token, ...], timings: Timings | None) -> None:
        """A worker finished its part; a fetch has no tokens."""
        self._generation.fetch_done(worker, self._fetch)

    def lost(self, worker: WorkerId) -> None:
        """The worker is gone, and with it more than the fetch."""
        self._generation.lost(worker)

    def fail(self, error: TwinferError) -> None:
        """A bug in the fetch is one in the generation."""
        self._generation.fail(error)
