"""The source's shell in virtual time: drives the product's ``SourceHandoff``, one per open handoff.

Digests take no time, as they are taken while later chunks are computed. A lease is looked at when it may have ended;
heartbeats are not messages here: whoever can be heard at that moment has been heard.
"""

from collections.abc import Sequence

from twinfer.core.errors import CapacityError, GrantRefused, InvalidRequest
from twinfer.core.grant import GrantTerms, Use
from twinfer.core.ids import HandoffId, RequestId
from twinfer.core.messages import (
    Busy,
    Committed,
    Confirm,
    Done,
    Failed,
    FailureKind,
    Frame,
    Gone,
    Lend,
    OfferAgain,
    Prefill,
    Refused,
)
from twinfer.core.request import GenerationRequest
from twinfer.core.tokens import Timings
from twinfer.engine.base import StepOutcome
from twinfer.handoff.actions import Digest, Release, Show, SourceAction
from twinfer.handoff.grants import verify
from twinfer.handoff.lease import Lease
from twinfer.handoff.source import SourceHandoff
from twinfer.simulator.context import Life, stay_alive

BUSY_RETRY_S = 0.5
"""What workers say."""
DIGEST = 0
"""Of bytes that are not there."""


class SourceDesk:
    """All handoffs out of one incarnation."""

    def __init__(self, life: Life) -> None:
        self._life = life
        self._chunk_blocks = max(1, int(life.handoff.chunk_kib * 1024 / life.hardware.block_bytes))
        self._open: dict[HandoffId, SourceHandoff] = {}
        self._by_request: dict[RequestId, HandoffId] = {}

    def __len__(self) -> int:
        return len(self._open)

    @property
    def requests(self) -> tuple[RequestId, ...]:
        """Those with a handoff open."""
        return tuple(self._by_request)

    def pass_on(self, message: Prefill | Lend) -> None:
        """Compute a prompt and pass it on, or pass a cached prefix on, or say why not."""
        request_id = message.request.request_id
        try:
            terms = verify(message.grant, self._life.key)
            if (known := self._open.get(terms.handoff)) is not None:
                self._again(known, terms)
            elif isinstance(message, Prefill):
                self._life.engine.export(message.request)
                self._begin(terms, message.request)
            else:
                self._lend(terms, message.request)
        except (GrantRefused, InvalidRequest) as error:
            self._life.network.to_gateway(self._life, Refused(request_id, str(error)))
        except CapacityError:
            self._life.network.to_gateway(self._life, Busy(request_id, BUSY_RETRY_S))

    def computed(self, outcome: StepOutcome) -> None:
        """A step ended: pass on what became final."""
        for part in outcome.exported:
            if machine := self._of(part.request_id):
                said = (part.first_block, part.blocks, part.generations)
                self._act(machine, machine.exported(*said, complete=part.complete))
        for token in outcome.tokens:
            if machine := self._of(token.request_id):
                self._act(machine, machine.drew(token))
        for failure in outcome.failed:
            if machine := self._of(failure.request_id):
                self._act(machine, machine.cancelled(f"the source's engine failed: {failure.reason}"))

    def hear(self, message: OfferAgain | Confirm | Committed | Gone) -> None:
        """A sink speaks."""
        machine = self._open.get(message.handoff)
        if machine is None or machine.terms.attempt != message.attempt:
            return
        if isinstance(message, Confirm):
            self._end(machine, machine.confirm_asked(self._generations(machine)), "a block was let go too early")
        elif isinstance(message, OfferAgain):
            self._act(machine, machine.asked_again(message.index))
        elif isinstance(message, Committed):
            request_id = machine.request.request_id
            self._act(machine, machine.committed())
            if machine.terms.use is Use.CACHE:
                self._life.network.to_gateway(self._life, Frame(done=(Done(request_id, Timings()),)))
        else:
            self._act(machine, machine.gone())
            self._fail(machine, f"the decode worker gave up: {message.reason}", FailureKind.HANDOFF)

    def cancel(self, request_id: RequestId) -> None:
        """The gateway no longer wants it."""
        if machine := self._of(request_id):
            self._act(machine, machine.cancelled("cancelled: the gateway withdrew the request"))

    def abandon(self) -> None:
        """End all that is open."""
        for machine in list(self._open.values()):
            self._act(machine, machine.cancelled("withdrawn: the source takes leave"))

    def reconnected(self) -> None:
        """Others can be reached again: repeat what was said, for handoffs still open."""
        for machine in list(self._open.values()):
            self._act(machine, machine.replay())

    def _again(self, machine: SourceHandoff, terms: GrantTerms) -> None:
        if terms.attempt > machine.terms.attempt:
            lease = Lease.start(self._life.schedule.now(), terms.ttl_s, machine.request.deadline_s)
            actions = machine.granted_again(terms, lease, self._generations(machine))
            self._end(machine, actions, "a block was let go too early")

    def _lend(self, terms: GrantTerms, request: GenerationRequest) -> None:
        blocks = self._life.engine.lend(request, terms.end_block)
        if blocks is None:
            reason = "the prefix is not cached here any more"
            self._life.network.to_gateway(self._life, Refused(request.request_id, reason))
            return
        machine = self._begin(terms, request)
        generations = self._life.engine.loop.pool.generations(blocks)
        self._act(machine, machine.exported(0, blocks, generations, complete=True))

    def _begin(self, terms: GrantTerms, request: GenerationRequest) -> SourceHandoff:
        lease = Lease.start(self._life.schedule.now(), terms.ttl_s, request.deadline_s)
        machine = self._open[terms.handoff] = SourceHandoff(terms, request, lease, self._chunk_blocks)
        self._by_request[request.request_id] = terms.handoff
        self._life.schedule.at(lease.deadline, self._look, machine)
        return machine

    def _look(self, machine: SourceHandoff) -> None:
        """The lease may be over."""
        life, terms, now = self._life, machine.terms, self._life.schedule.now()
        if not (machine.is_open and life.alive):
            return
        if machine.lease.deadline <= now and life.network.hears(life, terms.sink, terms.sink_epoch):
            stay_alive(machine.lease, now)
        silent = machine.lease.silent(now)
        kind = FailureKind.UNREACHABLE if silent else FailureKind.HANDOFF
        self._end(machine, machine.tick(now), "the handoff's lease ran out", kind)
        if machine.is_open:
            life.schedule.at(machine.lease.deadline, self._look, machine)

    def _of(self, request_id: RequestId) -> SourceHandoff | None:
        handoff = self._by_request.get(request_id)
        return None if handoff is None else self._open[handoff]

    def _generations(self, machine: SourceHandoff) -> tuple[int, ...]:
        return self._life.engine.loop.pool.generations(machine.blocks)

    def _act(self, machine: SourceHandoff, actions: Sequence[SourceAction]) -> None:
        for action in actions:
            if isinstance(action, Digest):
                self._act(machine, machine.digested(action.index, action.blocks, DIGEST))
            elif isinstance(action, Release):
                del self._open[machine.terms.handoff]
                del self._by_request[machine.request.request_id]
                self._life.engine.release(machine.request.request_id)
            elif not isinstance(action, Show):
                self._life.network.to_sink(self._life, machine.terms, action.message)

    def _end(
        self,
        machine: SourceHandoff,
        actions: Sequence[SourceAction],
        reason: str,
        kind: FailureKind = FailureKind.HANDOFF,
    ) -> None:
        """Carry out what may be the end, and then say why."""
        self._act(machine, actions)
        if actions and not machine.is_open:
            self._fail(machine, reason, kind)

    def _fail(self, machine: SourceHandoff, reason: str, kind: FailureKind) -> None:
        request_id = machine.request.request_id
        self._life.network.to_gateway(self._life, Failed(request_id, kind, reason))
