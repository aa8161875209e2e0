"""The sink's shell in virtual time: drives the product's ``SinkHandoff``, one per open handoff.

A pull is a number of bytes on the ways between two workers; what arrives is taken to be right.
"""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

from twinfer.core.errors import InvalidRequest
from twinfer.core.grant import GrantTerms, Use
from twinfer.core.ids import HandoffId, RequestId
from twinfer.core.manifest import Chunk
from twinfer.core.messages import (
    Busy,
    Committed,
    Confirmed,
    Done,
    Failed,
    Frame,
    Gone,
    Granted,
    Offer,
    Refused,
    Reserve,
    Seal,
    ToSource,
    Withdraw,
)
from twinfer.core.tokens import Timings
from twinfer.handoff.actions import Bind, Commit, GiveUp, Pull, SinkAction
from twinfer.handoff.grants import sign, terms_of
from twinfer.handoff.lease import Lease
from twinfer.handoff.link_fit import LinkFits
from twinfer.handoff.sink import SinkHandoff
from twinfer.handoff.waiting_room import Waiting, WaitingRoom, longest_wait_s
from twinfer.simulator.context import Life, Spoken, stay_alive
from twinfer.simulator.recorder import Recorder
from twinfer.simulator.source_desk import BUSY_RETRY_S, DIGEST

FAR_FUTURE_S = 4e9
"""Wall clocks do not matter here."""
MAX_REMEMBERED = 4096
"""Ended handoffs whose outcome is still told to a source that asks late."""


@dataclass(slots=True, eq=False)
class _Open:
    machine: SinkHandoff
    grant: Granted
    tokens: range
    wanted: bool = True
    num_bytes: float = 0.0


class SinkDesk:
    """All handoffs into one incarnation."""

    def __init__(self, life: Life, max_in_flight_bytes: float, recorder: Recorder) -> None:
        self._life = life
        self._recorder = recorder
        self.links = LinkFits(life.hardware.link_cost())
        self._max_in_flight_bytes = max_in_flight_bytes
        self._open: dict[HandoffId, _Open] = {}
        self._by_request: dict[RequestId, HandoffId] = {}
        self._waiting = WaitingRoom()
        self._ended: OrderedDict[HandoffId, tuple[GrantTerms, ToSource]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._open) + len(self._waiting)

    @property
    def requests(self) -> tuple[RequestId, ...]:
        """Those with a handoff open, and those that wait for room."""
        return (*self._by_request, *self._waiting.requests)

    def reserve(self, message: Reserve) -> None:
        """Promise room and grant it to the source that the gateway chose."""
        request, network = message.request, self._life.network
        if (known := self._open.get(message.handoff)) is not None:
            network.to_gateway(self._life, known.grant)
            return
        if message.handoff in self._ended:
            network.to_gateway(self._life, Refused(request.request_id, "the handoff has ended already"))
            return
        waits = message.use is Use.DECODE and self._waiting.is_before(request.tier.rank)
        answer = None if waits else self._answer(message)
        if answer is None:
            self._wait(message)
            return
        if isinstance(answer, Granted):
            self._waiting.passed()
        network.to_gateway(self._life, answer)

    def admit(self) -> None:
        """Give room to those that wait for it, in turn, as far as there is some."""
        waited = False
        while (first := self._waiting.first) is not None and (answer := self._answer(first.message)) is not None:
            self._waiting.take()
            self._life.network.to_gateway(self._life, answer)
            waited = True
        if waited:
            self._claim()

    def hear(self, message: Offer | Seal | Confirmed | Withdraw) -> None:
        """A source speaks."""
        entry, now = self._open.get(message.handoff), self._life.schedule.now()
        if entry is None or entry.machine.terms.attempt != message.attempt:
            if message.handoff in self._ended and not isinstance(message, Confirmed | Withdraw):
                self._life.network.to_source(self._life, *self._ended[message.handoff])
            return
        self._act(entry, entry.machine.hear(message, entry.machine.terms.source_epoch, now))

    def source_lost(self, epoch: str) -> None:
        """A source is gone, or out of reach."""
        for entry in [entry for entry in self._open.values() if entry.machine.terms.source_epoch == epoch]:
            self._act(entry, entry.machine.source_lost())

    def cancel(self, request_id: RequestId) -> None:
        """The gateway no longer wants it."""
        if request_id in self._waiting:
            self._waiting.leave(request_id)
            self._claim()
        handoff = self._by_request.get(request_id)
        if handoff is not None:
            entry = self._open[handoff]
            entry.wanted = False
            self._act(entry, entry.machine.cancelled("cancelled: the gateway withdrew the request"))

    def _answer(self, message: Reserve) -> Granted | Busy | Refused | None:
        """What to say to a reservation; ``None``: nothing yet, as there is no room for what will be decoded."""
        request, mine = message.request, self._life.identity.capabilities
        foreign = "" if message.capabilities.provenance == mine.provenance else message.capabilities.provenance
        try:
            to_come = self._life.engine.promise(request, foreign, message.use)
        except InvalidRequest as error:
            return Refused(request.request_id, str(error))
        if to_come is not None:
            return self._grant(message, to_come)
        return Busy(request.request_id, BUSY_RETRY_S) if message.use is Use.CACHE else None

    def _wait(self, message: Reserve) -> None:
        life, wait_s = self._life, longest_wait_s(self._life.handoff)
        self._waiting.enter(Waiting(message, life.schedule.now() + wait_s))
        life.schedule.after(wait_s, self._turn_away)
        self._claim()

    def _turn_away(self) -> None:
        """Somebody has waited long enough."""
        life = self._life
        if life.alive:
            for waiting in self._waiting.overdue(life.schedule.now()):
                busy = Busy(waiting.message.request.request_id, BUSY_RETRY_S, longest_wait_s(life.handoff))
                life.network.to_gateway(life, busy)
            self._claim()

    def _claim(self) -> None:
        first = self._waiting.first
        self._life.engine.claim(None if first is None else first.message.request)

    def _grant(self, message: Reserve, to_come: range) -> Granted:
        request, handoff, now = message.request, self._life.handoff, self._life.schedule.now()
        terms = terms_of(message, self._life.identity, handoff, to_come, FAR_FUTURE_S)
        granted = Granted(request.request_id, sign(terms, self._life.key), to_come.start)
        lease = Lease.start(now, handoff.lease_s, request.deadline_s)
        chunk_bytes = max(handoff.chunk_kib * 1024, self._life.hardware.block_bytes)
        machine = SinkHandoff(terms, request, lease, max(1, int(self._max_in_flight_bytes / chunk_bytes)))
        entry = self._open[message.handoff] = _Open(machine, granted, to_come)
        self._by_request[request.request_id] = message.handoff
        self._life.schedule.at(lease.deadline, self._look, entry)
        return granted

    def _look(self, entry: _Open) -> None:
        """The lease may be over."""
        life, machine, now = self._life, entry.machine, self._life.schedule.now()
        if not (machine.is_open and life.alive):
            return
        terms = machine.terms
        if machine.lease.deadline <= now and life.network.hears(life, terms.source, terms.source_epoch):
            stay_alive(machine.lease, now)
        self._act(entry, machine.tick(now))
        if machine.is_open:
            life.schedule.at(machine.lease.deadline, self._look, entry)

    def _act(self, entry: _Open, actions: Sequence[SinkAction]) -> None:
        for action in actions:
            if isinstance(action, Pull):
                self._pull(entry, action.chunk)
            elif isinstance(action, Bind):
                self._life.engine.bind(entry.machine.request.request_id)
            elif isinstance(action, Commit):
                self._commit(entry, action)
            elif isinstance(action, GiveUp):
                self._give_up(entry, action)
            else:
                self._tell(entry, action.message)

    def _pull(self, entry: _Open, chunk: Chunk) -> None:
        life, terms = self._life, entry.machine.terms
        size = terms.wire.block_tokens
        start = max(entry.tokens.start, chunk.first_block * size)
        end = min(entry.tokens.stop, (chunk.first_block + len(chunk.source_blocks)) * size)
        num_bytes = life.hardware.kv_bytes(start, end)
        there_at, now = life.network.pull(life, terms, num_bytes), life.schedule.now()
        if there_at is None:
            life.schedule.after(0.0, self._pulled, entry, chunk, num_bytes)
        else:
            self.links.observe(terms.source, num_bytes, there_at - now, there_at)
            life.schedule.at(there_at, self._pulled, entry, chunk, num_bytes)

    def _pulled(self, entry: _Open, chunk: Chunk, num_bytes: float) -> None:
        life, machine, terms = self._life, entry.machine, entry.machine.terms
        if not life.alive:
            return
        if not life.network.hears(life, terms.source, terms.source_epoch):
            self._act(entry, machine.pull_failed(chunk.index, "the source is out of reach"))
            return
        entry.num_bytes += num_bytes
        self._act(entry, machine.pulled(chunk.index, DIGEST, life.schedule.now()))

    def _commit(self, entry: _Open, action: Commit) -> None:
        machine, life, now = entry.machine, self._life, self._life.schedule.now()
        request_id, token = machine.request.request_id, action.first_token
        assert machine.sealed_at is not None
        self._recorder.handoffs.append((now - machine.sealed_at, entry.num_bytes))
        if token is not None:
            life.network.tokens(life, Spoken((token,), now, now), done=False)
        life.engine.commit(request_id, token)
        if token is None:
            life.network.to_gateway(life, Frame(done=(Done(request_id, Timings()),)))
        self._end(entry, Committed(machine.terms.handoff, machine.terms.attempt))

    def _give_up(self, entry: _Open, action: GiveUp) -> None:
        request_id = entry.machine.request.request_id
        self._life.engine.withdraw(request_id, landing=action.landing)
        self._end(entry, Gone(entry.machine.terms.handoff, entry.machine.terms.attempt, action.reason))
        if entry.wanted:
            self._life.network.to_gateway(self._life, Failed(request_id, action.kind, action.reason))
        self.admit()

    def _end(self, entry: _Open, outcome: ToSource) -> None:
        handoff = entry.machine.terms.handoff
        del self._open[handoff]
        del self._by_request[entry.machine.request.request_id]
        self._ended[handoff] = entry.machine.terms, outcome
        if len(self._ended) > MAX_REMEMBERED:
            self._ended.popitem(last=False)

    def _tell(self, entry: _Open, message: ToSource) -> None:
        self._life.network.to_source(self._life, entry.machine.terms, message)
