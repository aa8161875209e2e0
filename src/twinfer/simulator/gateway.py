"""A gateway in virtual time: the product's router and ``GatewayRequest``, and what clients see of them."""

import random
from collections.abc import Callable, Sequence

from twinfer.core.cost import prompt_work
from twinfer.core.errors import ContextOverflow, DeadlineExceeded, TwinferError
from twinfer.core.ids import Epoch, HandoffId, ModelId, RequestId, TenantId, WorkerId
from twinfer.core.messages import (
    Become,
    Busy,
    Cancel,
    Failed,
    FailureKind,
    Frame,
    Generate,
    Granted,
    Isolate,
    Prefill,
    Refused,
    Reserve,
    TellBlocks,
    ToGateway,
    ToWorker,
)
from twinfer.core.request import GenerationRequest, Sampling, Stopping
from twinfer.core.route import Route
from twinfer.core.service import Tier
from twinfer.core.traces import TraceRequest
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
from twinfer.router.policy import choose_route, fetch_threshold
from twinfer.simulator.context import Spoken
from twinfer.simulator.fleet import Fleet, Link
from twinfer.simulator.prompt import SpanPrompt
from twinfer.simulator.recorder import Journey, Recorder
from twinfer.simulator.scenario import Scenario
from twinfer.simulator.schedule import Event, Schedule

TENANT = TenantId("trace")
SendToWorker = Callable[[WorkerId, ToWorker], None]


class Gateway:
    """One gateway with all requests of a trace.

    Args:
        scenario: its configuration's routing, handoff and gateway tables, its overheads and its seed are used.
        fleet: its workers.
        send: to a worker, over the network.
        recorder: of what clients see.
    """

    def __init__(
        self, scenario: Scenario, fleet: Fleet, schedule: Schedule, send: SendToWorker, recorder: Recorder
    ) -> None:
        self.config = scenario.config
        self.own_s = scenario.overheads.gateway_s
        self.fleet = fleet
        self.schedule = schedule
        self.send = send
        self.recorder = recorder
        self.num_reserved = 0
        self.num_others = 0
        self._random = random.Random(scenario.seed)
        self._model = ModelId(scenario.config.model[0].id)

    def handoff_id(self) -> HandoffId:
        """A fresh one."""
        return HandoffId(f"{self._random.getrandbits(128):032x}")

    def arrive(self, number: int, asked: TraceRequest) -> Journey:
        """A client asks."""
        now, gateway = self.schedule.now(), self.config.gateway
        journey = Journey(number, now, asked.input_tokens, asked.output_tokens)
        self.recorder.journeys.append(journey)
        if asked.tier.is_full(gateway.max_requests, self.num_reserved, self.num_others, gateway.flex_share):
            journey.outcome = "rejected"
            return journey
        request = GenerationRequest(
            RequestId(f"r{number}"),
            self._model,
            TENANT,
            SpanPrompt(asked.stretches, asked.stretch_tokens, 0, asked.input_tokens).as_tokens(),
            Stopping(asked.output_tokens),
            Sampling(temperature=0.0),
            deadline_s=gateway.request_timeout_s,
            tier=asked.tier,
        )
        self.count(asked.tier, 1)
        Generation(request, self, journey)
        return journey

    @property
    def is_busy(self) -> bool:
        """Whether any request is under way."""
        return self.num_reserved + self.num_others > 0

    def count(self, tier: Tier, change: int) -> None:
        """So many more are under way."""
        if tier is Tier.RESERVED:
            self.num_reserved += change
        else:
            self.num_others += change


class Generation:
    """One request under way; it plans itself once the gateway's own time has passed."""

    def __init__(self, request: GenerationRequest, gateway: Gateway, journey: Journey) -> None:
        config = gateway.config
        self._gateway = gateway
        self._schedule = gateway.schedule
        self._fleet = gateway.fleet
        self._routing = config.routing
        self._journey = journey
        self._machine = GatewayRequest(request, config.routing.least_remote_tokens, config.handoff)
        self._lost: set[Epoch] = set()
        self._hits: dict[WorkerId, int] = {}
        self._expected: tuple[Link, RequestId] | None = None
        self._pause: Event | None = None
        self._patience: Event | None = None
        self._deadline = self._schedule.after(request.deadline_s, self._overdue)
        self._schedule.after(gateway.own_s, self.plan)

    @property
    def route(self) -> Route | None:
        """The path of the current attempt."""
        return self._machine.plan.route if self._machine.plan is not None else None

    def plan(self, excluded: frozenset[WorkerId] = frozenset(), keep: Passing | None = None) -> None:
        """Choose workers."""
        request, now = self._machine.request, self._schedule.now()
        snapshot = self._fleet.snapshot(now)
        try:
            self._hits = self._fleet.hits(request)
            route = choose_route(request, snapshot, self._routing, None, excluded, self._hits)
        except TwinferError as error:
            self._act(self._machine.unplannable(error, now, awaited=self._fleet.missing()))
            return
        chosen = Chosen(route, snapshot, self._hits, fetch_threshold(route, snapshot, self._routing))
        plan = chosen.plan(keep, self._lost, self._machine.has_decoded, self._gateway.handoff_id)
        self._journey.disaggregated = plan.passing is not None
        actions = self._machine.planned(plan)
        self._expect(None if plan.passing is keep else plan.route.prefill)
        self._act(actions)

    def hear(self, worker: WorkerId, message: ToGateway) -> None:
        """A worker speaks of this request."""
        if isinstance(message, Failed) and message.kind is FailureKind.UNREACHABLE:
            route = self.route
            if route is not None and route.prefill is not None:
                self._fleet.mark_parted(route.prefill, route.decode, self._schedule.now())
        if isinstance(message, Frame):
            for done in message.done:
                self._act(self._machine.fetch_done(worker, done.request_id))
        elif isinstance(message, Granted | Busy | Refused | Failed):
            self._act(self._machine.hear(worker, message, self._schedule.now()))

    def hear_tokens(self, worker: WorkerId, spoken: Spoken, *, done: bool) -> None:
        """A worker drew tokens."""
        machine, route, journey = self._machine, self.route, self._journey
        known = len(machine.journal)
        if spoken.tokens[-1].index >= known:
            if journey.first_token is None:
                journey.first_token = spoken.first_s
            elif journey.last_token is not None:
                self._gateway.recorder.gaps.add(spoken.first_s - journey.last_token)
            journey.last_token = spoken.last_s
        if route is not None and route.prefill is not None and worker == route.decode:
            machine.leg_done(route.prefill)
        self._act(machine.tokens(tuple(spoken.tokens)))
        if done and route is not None and worker == route.decode:
            machine.leg_done(worker)

    def lost(self, worker: WorkerId) -> None:
        """A worker died."""
        self._lost.add(self._fleet.links[worker].identity.epoch)
        self._act(self._machine.lost(worker))

    def _expect(self, prefill: WorkerId | None) -> None:
        """Count the prompt on its prefill worker from now on."""
        self._expect_no_more()
        if prefill is not None:
            self._expected = self._fleet.links[prefill], self._machine.wire_id
            self._expected[0].expect(self._machine.wire_id, len(self._machine.request.prompt))

    def _expect_no_more(self) -> None:
        """The prompt is sent to its prefill worker now, or will not be."""
        if self._expected is not None:
            link, wire_id = self._expected
            link.expect_no_more(wire_id)
            self._expected = None

    def _act(self, actions: Sequence[GatewayAction]) -> None:
        for action in actions:
            if isinstance(action, Send):
                self._send(action)
            elif isinstance(action, Emit):
                self._journey.num_tokens += len(action.tokens)
            elif isinstance(action, Mismatch):
                self._fleet.mark_mismatch(action.source, action.sink)
            elif isinstance(action, FetchBegan):
                self._patience = self._schedule.after(action.within_s, self._fetch_overdue, action.fetch)
            elif isinstance(action, FetchEnded):
                fetches = self._gateway.recorder.fetches
                fetches[action.outcome] = fetches.get(action.outcome, 0) + 1
                self._call_off(self._patience)
            elif isinstance(action, Replan):
                replans = self._gateway.recorder.replans
                replans[action.reason] = replans.get(action.reason, 0) + 1
                self._expect_no_more()
                self._call_off(self._pause)
                self._pause = self._schedule.after(action.pause_s, self.plan, action.exclude, action.keep)
            else:
                self._end(action)

    def _send(self, action: Send) -> None:
        link, message = self._fleet.links[action.worker], action.message
        if isinstance(message, Prefill | Generate):
            self._expect_no_more()
        if isinstance(message, Prefill) and not self._is_granted(action.worker):
            self._schedule.after(0.0, self._unreached, action.worker, self._machine.wire_id)
            return
        if isinstance(message, Cancel):
            link.forget(message.request_id)
        elif not isinstance(message, Isolate | TellBlocks | Become):
            request_id = message.request.request_id
            whole = request_id == self._machine.wire_id
            link.await_request(request_id, self, len(message.request.prompt) if whole else 0)
            if whole and isinstance(message, Reserve | Generate):
                link.answering.add(request_id)
            if isinstance(message, Prefill | Generate):
                end = len(message.request.prompt)
                work = prompt_work(min(self._hits.get(action.worker, 0), end), end)
                link.queue.sent(work, message.request.tier.rank, self._schedule.now())
        self._gateway.send(action.worker, message)

    def _is_granted(self, worker: WorkerId) -> bool:
        passing = self._machine.plan.passing if self._machine.plan is not None else None
        link = self._fleet.links[worker]
        return passing is not None and link.alive and link.identity.epoch == passing.source_epoch

    def _unreached(self, worker: WorkerId, wire_id: RequestId) -> None:
        if self._machine.wire_id == wire_id:
            self._act(self._machine.unreached(worker))

    def _fetch_overdue(self, fetch: RequestId) -> None:
        self._act(self._machine.fetch_overdue(fetch))

    def _overdue(self) -> None:
        self._act(self._machine.overdue())

    def _end(self, end: End) -> None:
        self._expect_no_more()
        journey = self._journey
        journey.outcome = "ok" if end.error is None else _word(end.error)
        journey.recoveries = self._machine.num_recoveries
        journey.cached_tokens = self._machine.cached_tokens
        if end.error is None:
            self._fleet.book.answered(journey.num_tokens)
        self._gateway.count(self._machine.request.tier, -1)
        for event in (self._deadline, self._pause, self._patience):
            self._call_off(event)
        if end.error is not None:
            self._act(self._machine.client_left())

    @staticmethod
    def _call_off(event: Event | None) -> None:
        if event is not None:
            event.cancel()


def _word(error: TwinferError) -> str:
    """An error, as a row of a table has it."""
    words = {ContextOverflow: "too long", DeadlineExceeded: "timed out"}
    return words.get(type(error), "no capacity" if hasattr(error, "retry_after_s") else "failed")
