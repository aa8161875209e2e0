"""What a worker does with each message and each step's outcome. No stream, no task, no time: the service has those."""

import msgspec

from twinfer.core.errors import CapacityError, InvalidRequest
from twinfer.core.ids import RequestId
from twinfer.core.load import Counters, LoadReport
from twinfer.core.messages import AboutRequest, Busy, Cancel, Done, Failed, Generate, Lend, Prefill, Refused, Reserve
from twinfer.engine.base import StepOutcome
from twinfer.worker.compatibility import accepts
from twinfer.worker.context import WorkerContext
from twinfer.worker.sessions import GatewayOutlet, Sessions
from twinfer.worker.sink_desk import SinkDesk
from twinfer.worker.source_desk import BUSY_RETRY_S, Links, SourceDesk
from twinfer.worker.transports import Sources


class Reception:
    """Takes requests in, hands tokens out, and knows what a gateway leaves behind.

    Attributes:
        sink: handoffs into this worker.
        source: handoffs out of it.
    """

    def __init__(self, context: WorkerContext, sources: Sources, max_pulls: int) -> None:
        self._context = context
        self._sessions = Sessions()
        self.sink = SinkDesk(context, self._sessions, max_pulls)
        self.source = SourceDesk(context, self._sessions, sources)

    def take(self, message: AboutRequest, gateway: GatewayOutlet, links: Links) -> None:
        """A gateway speaks."""
        if isinstance(message, Cancel):
            self._cancel(message.request_id)
            return
        request_id = message.request.request_id
        self._sessions.open(request_id, gateway)
        if isinstance(message, Reserve):
            reply = self.sink.reserve(message)
            if reply is not None:
                self._sessions.tell(request_id, reply)
        elif isinstance(message, Prefill | Lend):
            answer = self.source.pass_on(message, links)
            if answer is not None:
                self._sessions.tell(request_id, answer)
        else:
            self._generate(message)

    def turn_away(self, message: AboutRequest, gateway: GatewayOutlet) -> None:
        """A gateway speaks while nothing new is taken: it plans again, without this worker."""
        if isinstance(message, Cancel):
            self._cancel(message.request_id)
        else:
            gateway.send_soon(Busy(message.request.request_id, 0.0))

    def num_open(self) -> int:
        """What is under way, in requests and handoffs; 0 when nothing is."""
        load = self._context.engine.load()
        handoffs = sum(sum(desk.states.values()) for desk in (self.sink.describe(), self.source.describe()))
        return len(self._sessions) + handoffs + load.running + load.waiting

    def hand_back(self) -> None:
        """Give up all that is under way; the gateways go on with it elsewhere, from the tokens that they have."""
        for request_id in self._sessions.all():
            self._sessions.tell(request_id, Busy(request_id, 0.0))
            self._cancel(request_id)
        self.source.abandon()

    def gateway_left(self, gateway: GatewayOutlet) -> None:
        """Nobody is left to read its answers: cancel whatever it asked for."""
        for request_id in self._sessions.of(gateway):
            self._cancel(request_id)

    def deliver(self, outcome: StepOutcome) -> None:
        """Pass on what a step brought."""
        self.source.computed(outcome)
        done = tuple(Done(request_id, self.sink.complete(request_id, times)) for request_id, times in outcome.finished)
        self._sessions.tell_step(outcome.tokens, done)
        for failure in outcome.failed:
            self.sink.forget(failure.request_id)
            self._sessions.tell(failure.request_id, Failed(failure.request_id, failure.kind, failure.reason))

    def tick(self) -> None:
        """End what is overdue on both sides; the reclaimer's call, from its own thread."""
        self.sink.tick()
        self.source.tick()

    def load(self, *, healthy: bool) -> LoadReport:
        """The worker's report: the engine's and both desks'."""
        report = self._context.engine.load()
        counts = msgspec.structs.asdict(report.counters)
        handoffs: dict[str, int] = {}
        desks = (self.sink.describe(), self.source.describe())
        for desk in desks:
            handoffs |= desk.states
            for name, value in msgspec.structs.asdict(desk.counters).items():
                counts[name] += value
        return msgspec.structs.replace(
            report,
            counters=Counters(**counts),
            handoffs=handoffs,
            handoffs_by_transport=self.sink.by_transport(),
            grants_refused=self.source.grants_refused(),
            links=self.sink.links(),
            oldest_held_s=max(desk.oldest_held_s for desk in desks),
            longest_silence_s=max(desk.longest_silence_s for desk in desks),
            healthy=healthy,
        )

    def _generate(self, message: Generate) -> None:
        request, engine = message.request, self._context.engine
        own = message.provenance == engine.capabilities.provenance
        foreign = message.provenance if not own and accepts(self._context.accept, message.provenance) else ""
        try:
            engine.submit(request, message.emitted, foreign)
        except InvalidRequest as error:
            self._sessions.tell(request.request_id, Refused(request.request_id, str(error)))
        except CapacityError:
            self._sessions.tell(request.request_id, Busy(request.request_id, BUSY_RETRY_S))
        else:
            self._context.wake()

    def _cancel(self, request_id: RequestId) -> None:
        self._sessions.close(request_id)
        self.sink.cancel(request_id)
        self.source.cancel(request_id)
        self._context.engine.cancel(request_id)
        self.sink.forget(request_id)
        self.sink.admit()
        self._context.wake()
