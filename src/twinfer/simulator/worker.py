"""A worker in virtual time: one incarnation after another, each with the product's loop and two desks around it."""

import msgspec

from twinfer.core.capabilities import Role
from twinfer.core.errors import CapacityError, InvalidRequest
from twinfer.core.ids import RequestId
from twinfer.core.load import LoadReport
from twinfer.core.messages import (
    Become,
    Blocks,
    Busy,
    Cancel,
    Committed,
    Confirm,
    Confirmed,
    Failed,
    Generate,
    Gone,
    Hello,
    Lend,
    Load,
    Offer,
    OfferAgain,
    Prefill,
    Refused,
    Reserve,
    Seal,
    ToSink,
    ToSource,
    ToWorker,
    Withdraw,
)
from twinfer.engine.base import StepOutcome
from twinfer.handoff.duty import Duty, Order
from twinfer.simulator.context import Life, Spoken
from twinfer.simulator.recorder import Recorder, WorkerRecord
from twinfer.simulator.sink_desk import SinkDesk
from twinfer.simulator.source_desk import BUSY_RETRY_S, SourceDesk
from twinfer.simulator.timed_run import TimedRun

LOAD_PERIOD_S = 0.25
"""How often workers report, at most."""
LOOK_S = 0.01
"""How often a worker that turns looks whether something is open."""


class Incarnation:
    """A worker from its start to its death: the engine's listener, and whom messages are for."""

    def __init__(self, life: Life, recorder: Recorder, record: WorkerRecord, max_in_flight_bytes: float) -> None:
        self.life = life
        self.source = SourceDesk(life)
        self.sink = SinkDesk(life, max_in_flight_bytes, recorder)
        self._duty = Duty(life.identity, life.handoff.drain_s)
        self._recorder = recorder
        self._record = record
        self._reported = -LOAD_PERIOD_S
        self._report_due = False
        self._told = -1
        """Number of the next change in the prefix cache to tell."""
        life.engine.listen(self)

    def take(self, message: ToWorker) -> None:
        """The gateway speaks."""
        if not self.life.alive:
            return
        if isinstance(message, Cancel):
            self._cancel(message.request_id)
        elif isinstance(message, Become):
            self._turn(message.role)
        elif not self._duty.takes_new:
            self._turn_away(message)
        elif isinstance(message, Reserve):
            self.sink.reserve(message)
        elif isinstance(message, Prefill | Lend):
            self.source.pass_on(message)
        elif isinstance(message, Generate):
            self._generate(message)
        self.changed()

    def hear_source(self, message: ToSink) -> None:
        """A source speaks."""
        if self.life.alive and isinstance(message, Offer | Seal | Confirmed | Withdraw):
            self.sink.hear(message)
            self.changed()

    def hear_sink(self, message: ToSource) -> None:
        """A sink speaks."""
        if self.life.alive and isinstance(message, OfferAgain | Confirm | Committed | Gone):
            self.source.hear(message)
            self.changed()

    def die(self) -> None:
        """End at once; nothing is told to anybody."""
        now = self.life.schedule.now()
        self.life.engine.stop()
        self.life.alive = False
        self._count()
        self._record.holds(now, 0)

    def began(self) -> None:
        """Steps begin, and have the blocks they need, or there are none to take."""
        self._record.holds(self.life.schedule.now(), self.life.engine.num_held_blocks)
        self.sink.admit()

    def finished(self, run: TimedRun, outcome: StepOutcome) -> None:
        """All steps of a run are over."""
        life, record, steps, end = self.life, self._record, run.steps, run.end(run.steps)
        record.busy.add(run.started, end)
        record.steps += steps if run.plan.slices else 0
        if steps > 1:
            self._recorder.gaps.add_even(run.step_s(1), run.growth_s, steps - 1, len(run.plan.slices))
        self.source.computed(outcome)
        done = {request_id for request_id, _ in outcome.finished}
        for first in range(0, len(outcome.tokens), steps):
            tokens = outcome.tokens[first : first + steps]
            life.network.tokens(life, Spoken(tokens, run.end(1), end), done=tokens[0].request_id in done)
        for failure in outcome.failed:
            life.network.to_gateway(life, Failed(failure.request_id, failure.kind, failure.reason))
        self.changed()

    def changed(self) -> None:
        """Something may be held or let go; say so to the router, not too often."""
        now = self.life.schedule.now()
        self._record.holds(now, self.life.engine.num_held_blocks)
        if not self._report_due:
            self._report_due = True
            self.life.schedule.at(max(now, self._reported + LOAD_PERIOD_S), self._report)

    def finish(self) -> None:
        """Time is over: write down what was counted."""
        self._record.holds(self.life.schedule.now(), 0)
        if self.life.alive:
            self._count()

    def _generate(self, message: Generate) -> None:
        request, engine = message.request, self.life.engine
        own = message.provenance in ("", self.life.identity.capabilities.provenance)
        try:
            engine.generate(request, message.emitted, "" if own else message.provenance)
        except InvalidRequest as error:
            self.life.network.to_gateway(self.life, Refused(request.request_id, str(error)))
        except CapacityError:
            self.life.network.to_gateway(self.life, Busy(request.request_id, BUSY_RETRY_S))

    def _cancel(self, request_id: RequestId) -> None:
        self.sink.cancel(request_id)
        self.source.cancel(request_id)
        self.life.engine.cancel(request_id)
        self.sink.admit()

    def _turn(self, role: Role) -> None:
        """Begin to change the role, if nothing speaks against it."""
        if self._duty.turn(role, self.life.schedule.now()) is None and not self._duty.takes_new:
            self._announce()
            self.life.schedule.after(LOOK_S, self._look)

    def _turn_away(self, message: ToWorker) -> None:
        """Nothing new is taken: the gateway plans again, without this worker."""
        if isinstance(message, Reserve | Prefill | Lend | Generate):
            self.life.network.to_gateway(self.life, Busy(message.request.request_id, 0.0))

    def _look(self) -> None:
        """Whether what was begun before the change of role has ended."""
        if not self.life.alive:
            return
        load, now = self.life.engine.load(), self.life.schedule.now()
        order = self._duty.look(len(self.source) + len(self.sink) + load.running + load.waiting, now)
        if order is Order.TURN:
            self.life.identity = self._duty.identity
            self._announce()
            return
        if order is Order.HAND_BACK:
            self._hand_back()
        self.life.schedule.after(LOOK_S, self._look)

    def _hand_back(self) -> None:
        """Give up all that is under way; the gateway goes on with it elsewhere, from the tokens that it has."""
        for request_id in {**dict.fromkeys(self.life.engine.loop.requests), **dict.fromkeys(self._handed())}:
            self.life.network.to_gateway(self.life, Busy(request_id, 0.0))
            self._cancel(request_id)
        self.source.abandon()

    def _handed(self) -> tuple[RequestId, ...]:
        return self.sink.requests + self.source.requests

    def _announce(self) -> None:
        self.life.network.to_gateway(self.life, Hello(self.life.identity))
        self.life.network.to_gateway(self.life, Load(self._load()))

    def _load(self) -> LoadReport:
        links, draining = self.sink.links.costs(), not self._duty.takes_new
        return msgspec.structs.replace(self.life.engine.load(), links=links, draining=draining)

    def _report(self) -> None:
        self._report_due = False
        self._reported = self.life.schedule.now()
        self.life.network.to_gateway(self.life, Load(self._load()))
        events = self.life.engine.loop.pool.events(self._told)
        if events.everything or events.gone:
            self._told = events.next
            self.life.network.to_gateway(self.life, Blocks(events))

    def _count(self) -> None:
        """Add this incarnation's counts to the worker's."""
        counters, record = self.life.engine.loop.load().counters, self._record
        record.prefill_tokens += counters.prefill_tokens
        record.cached_tokens += counters.cached_tokens
        record.decode_tokens += counters.decode_tokens
        record.preemptions += counters.preemptions
        record.bytes_in += self.life.way_in.num_bytes
        record.bytes_out += self.life.way_out.num_bytes
