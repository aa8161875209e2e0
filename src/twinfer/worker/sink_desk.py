"""The sink's shell: drives one ``SinkHandoff`` per open handoff.

Events come from the event loop (messages), the transfer thread (pulls) and the reclaimer (time); one lock orders
them. The actions are quick: engine calls take effect between steps, pulls go to the transfer thread, messages to the
event loop. A fence may wait for a strip of a copy, never for a peer.
"""

import logging
import threading
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import msgspec

from twinfer.core.capabilities import Capabilities, WorkerIdentity
from twinfer.core.cost import LinkCost
from twinfer.core.errors import InvalidRequest, TransportError
from twinfer.core.grant import GrantTerms, Proof, Use
from twinfer.core.ids import HandoffId, RequestId, WorkerId
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
    Heartbeat,
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
from twinfer.handoff.sink import SinkHandoff, SinkState
from twinfer.handoff.waiting_room import Waiting, WaitingRoom, longest_wait_s
from twinfer.worker.compatibility import ConversionPlan, negotiate
from twinfer.worker.context import Outbox, WorkerContext
from twinfer.worker.desk_report import DeskReport, describe
from twinfer.worker.intake import Intake, Staging
from twinfer.worker.transports import Connection

logger = logging.getLogger(__name__)
BUSY_RETRY_S = 0.5
MAX_REMEMBERED = 4096
"""Ended handoffs whose outcome is still told to a source that asks late."""


@dataclass(frozen=True, slots=True)
class SourcePeer:
    """A source worker on its control stream, and its pool as the transport reaches it."""

    identity: WorkerIdentity
    connection: Connection
    send: Callable[[ToSource], None]
    """From the event loop only."""


@dataclass(slots=True)
class _Open:
    machine: SinkHandoff
    grant: Granted
    intake: Intake
    peer: SourcePeer | None = None
    num_bytes: int = 0
    wanted: bool = True
    """Whether a gateway waits to hear how it ends."""


class SinkDesk:
    """All handoffs into this worker."""

    def __init__(self, context: WorkerContext, outbox: Outbox, max_pulls: int) -> None:
        self._context = context
        self._outbox = outbox
        self._max_pulls = max_pulls
        self._staging = Staging(max_pulls * context.handoff.chunk_kib * 1024)
        self._lock = threading.Lock()
        self._open: dict[HandoffId, _Open] = {}
        self._by_request: dict[RequestId, HandoffId] = {}
        self._ended: OrderedDict[HandoffId, ToSource] = OrderedDict()
        self._waiting = WaitingRoom()
        self._received: dict[RequestId, tuple[float, int, int]] = {}
        self._counts: Counter[str] = Counter()
        self._by_transport: Counter[str] = Counter()
        self._links = LinkFits()

    def reserve(self, message: Reserve) -> Granted | Busy | Refused | None:
        """Promise room and grant it to the source that the gateway chose; ``None``: it waits, and is told later."""
        request = message.request
        with self._lock:
            known = self._open.get(message.handoff)
            if known is not None:
                return known.grant
            if message.handoff in self._ended:
                return Refused(request.request_id, "the handoff has ended already")
            if request.request_id in self._waiting:
                return None
            waits = message.use is Use.DECODE and self._waiting.is_before(request.tier.rank)
            answer = None if waits else self._answer(message)
            if answer is None:
                self._wait(message)
            elif isinstance(answer, Granted):
                self._waiting.passed()
            return answer

    def admit(self) -> None:
        """Give room to those that wait for it, in turn, as far as there is some."""
        if not self._waiting:
            return
        with self._lock:
            num_waiting = len(self._waiting)
            while (first := self._waiting.first) is not None:
                answer = self._answer(first.message)
                if answer is None:
                    break
                self._waiting.take()
                self._context.soon(self._outbox.tell, first.message.request.request_id, answer)
            if len(self._waiting) < num_waiting:  # else the engine knows, and to wake it would make it ask again
                self._claim()

    def objection(self, source: WorkerIdentity) -> str | None:
        """Why KV of this source cannot be taken at all, in words; ``None`` when it can."""
        with self._lock:
            plan = self._negotiate(source.capabilities)
            return plan if isinstance(plan, str) else None

    def hear(self, peer: SourcePeer, message: Offer | Seal | Confirmed | Withdraw | Heartbeat) -> None:
        """A source speaks."""
        now = self._context.clock.now()
        with self._lock:
            if isinstance(message, Heartbeat):
                for handoff in message.handoffs:
                    if (entry := self._open.get(handoff)) and entry.machine.terms.source_epoch == message.epoch:
                        entry.machine.heard(now)
                return
            entry = self._open.get(message.handoff)
            if entry is None or entry.machine.terms.attempt != message.attempt:
                self._answer_late(peer, message)
                return
            entry.peer = peer
            machine, epoch = entry.machine, peer.identity.epoch
            if epoch == machine.terms.source_epoch and not _is_as_granted(machine.terms, peer.identity):
                actions = machine.cancelled("incompatible: the source is not what room was reserved for")
            else:
                actions = machine.hear(message, epoch, now)
            self._act(entry, actions)

    def source_lost(self, peer: SourcePeer) -> None:
        """A control stream ended: what was not sealed will never be."""
        with self._lock:
            for entry in [entry for entry in self._open.values() if entry.peer is peer]:
                self._act(entry, entry.machine.source_lost())

    def cancel(self, request_id: RequestId) -> None:
        """The gateway no longer wants it."""
        with self._lock:
            if request_id in self._waiting:
                self._waiting.leave(request_id)
                self._claim()
            handoff = self._by_request.get(request_id)
            if handoff is not None:
                entry = self._open[handoff]
                entry.wanted = False
                self._act(entry, entry.machine.cancelled("cancelled: the gateway withdrew the request"))

    def held_from(self, source: WorkerIdentity) -> tuple[HandoffId, ...]:
        """Open handoffs granted to one start of a source, for the heartbeat."""
        with self._lock:
            return tuple(
                handoff for handoff, entry in self._open.items() if entry.machine.terms.source_epoch == source.epoch
            )

    def tick(self) -> None:
        """End what is overdue. Called by the reclaimer."""
        now = self._context.clock.now()
        with self._lock:
            for entry in list(self._open.values()):
                self._act(entry, entry.machine.tick(now))
            overdue = list(self._waiting.overdue(now))
            for waiting in overdue:
                request_id = waiting.message.request.request_id
                busy = Busy(request_id, BUSY_RETRY_S, longest_wait_s(self._context.handoff))
                self._context.soon(self._outbox.tell, request_id, busy)
            if overdue:
                self._claim()
        self.admit()

    def complete(self, request_id: RequestId, timings: Timings) -> Timings:
        """Add what the handoff knows to an engine's timings of a request that is finished."""
        with self._lock:
            transfer_s, num_bytes, cached_tokens = self._received.pop(request_id, (0.0, 0, timings.cached_tokens))
        return msgspec.structs.replace(
            timings, transfer_s=transfer_s, transfer_bytes=num_bytes, cached_tokens=cached_tokens
        )

    def forget(self, request_id: RequestId) -> None:
        """Its answer will not be finished."""
        with self._lock:
            self._received.pop(request_id, None)

    def describe(self) -> DeskReport:
        """Open handoffs, and this desk's counts."""
        now = self._context.clock.now()
        with self._lock:
            machines = [entry.machine for entry in self._open.values()]
            handoffs = ((f"sink_{machine.state.value}", machine.lease) for machine in machines)
            return describe(handoffs, self._counts, now)

    def by_transport(self) -> dict[str, int]:
        """Handoffs committed here, by the transport that brought them."""
        with self._lock:
            return dict(self._by_transport)

    def links(self) -> dict[WorkerId, LinkCost]:
        """What transfers to here cost, by where they came from."""
        with self._lock:
            return self._links.costs()

    def _negotiate(self, source: Capabilities) -> ConversionPlan | str:
        plan = negotiate(source, self._context.identity.capabilities, self._context.accept)
        self._counts["pairs_refused"] += isinstance(plan, str)
        return plan

    def _answer(self, message: Reserve) -> Granted | Busy | Refused | None:
        """What to say to a reservation; ``None``: nothing yet, as there is no room for what will be decoded."""
        request = message.request
        plan = self._negotiate(message.capabilities)
        if isinstance(plan, str):
            return Refused(request.request_id, f"incompatible: {plan}", incompatible=True)
        if plan.foreign and message.use is Use.CACHE:
            reason = f"KV of numeric provenance {plan.provenance} would not be found here as this worker's own"
            return Refused(request.request_id, reason)
        try:
            foreign = plan.provenance if plan.foreign else ""
            to_come = self._context.engine.ingests.promise(request, foreign, message.use)
        except InvalidRequest as error:
            return Refused(request.request_id, str(error))
        if to_come is not None:
            return self._grant(message, plan, to_come)
        return Busy(request.request_id, BUSY_RETRY_S) if message.use is Use.CACHE else None

    def _wait(self, message: Reserve) -> None:
        self._waiting.enter(Waiting(message, self._context.clock.now() + longest_wait_s(self._context.handoff)))
        self._claim()

    def _claim(self) -> None:
        """Tell the engine who waits first."""
        first = self._waiting.first
        if first is None:
            self._context.engine.ingests.claim(None)
        else:
            self._context.engine.ingests.claim(first.message.request, lambda: self._context.soon(self.admit))
        self._context.wake()

    def _grant(self, message: Reserve, plan: ConversionPlan, to_come: range) -> Granted:
        request, context = message.request, self._context
        expires_unix_s = time.time() + context.handoff.lease_s
        terms = terms_of(message, context.identity, context.handoff, to_come, expires_unix_s)
        on_host = context.engine.exports.count_on_host(request, to_come.start)
        granted = Granted(request.request_id, sign(terms, context.cluster_key), to_come.start, on_host)
        lease = Lease.start(context.clock.now(), context.handoff.lease_s, request.deadline_s)
        machine = SinkHandoff(terms, request, lease, self._max_pulls)
        intake = Intake(plan, to_come, context.memory, self._staging, digests=terms.proof is Proof.DIGEST)
        self._open[message.handoff] = _Open(machine, granted, intake)
        self._by_request[request.request_id] = message.handoff
        return granted

    def _answer_late(self, peer: SourcePeer, message: Offer | Seal | Confirmed | Withdraw) -> None:
        gone = Gone(message.handoff, message.attempt, "unknown: no such handoff is open here")
        if not isinstance(message, Confirmed | Withdraw):
            self._context.soon(peer.send, self._ended.get(message.handoff, gone))

    def _act(self, entry: _Open, actions: Sequence[SinkAction]) -> None:
        """Carry out what the machine decided; the lock is held."""
        for action in actions:
            if isinstance(action, Pull):
                self._context.transfer(entry.machine.request.tier.rank, self._pull, entry, action.chunk)
            elif isinstance(action, Bind):
                entry.intake.bind(self._context.engine.ingests.bind(entry.machine.request.request_id))
                if entry.peer is not None:
                    entry.peer.connection.sink.admit(entry.machine.terms.handoff)
            elif isinstance(action, Commit):
                self._commit(entry, action)
            elif isinstance(action, GiveUp):
                self._give_up(entry, action)
            elif entry.peer is not None:
                self._context.soon(entry.peer.send, action.message)

    def _commit(self, entry: _Open, action: Commit) -> None:
        machine, first_token = entry.machine, action.first_token
        request_id = machine.request.request_id
        assert machine.sealed_at is not None
        transfer_s = self._context.clock.now() - machine.sealed_at
        if first_token is not None:
            # Told before the engine may draw the next token: the gateway sees index 0 first.
            self._context.soon(self._outbox.tell, request_id, Frame((first_token,)))
            self._context.engine.ingests.commit(request_id, first_token)
            self._received[request_id] = (transfer_s, entry.num_bytes, entry.grant.cached_tokens)
            self._counts["handoffs_in"] += 1
        else:
            # Told after the prefix can be found: the gateway sends the prompt that begins with it next.
            self._context.engine.ingests.commit(request_id, None)
            timings = Timings(transfer_s=transfer_s, transfer_bytes=entry.num_bytes)
            self._context.soon(self._outbox.tell, request_id, Frame(done=(Done(request_id, timings),)))
            self._counts["fetches_in"] += 1
            self._counts["fetched_tokens"] += len(entry.intake.tokens)
        self._context.wake()
        if entry.peer is not None:
            self._by_transport[entry.peer.connection.endpoint.transport] += 1
        self._end(entry, Committed(machine.terms.handoff, machine.terms.attempt))

    def _give_up(self, entry: _Open, action: GiveUp) -> None:
        machine, engine = entry.machine, self._context.engine
        quarantined = engine.ingests.withdraw(machine.request.request_id, landing=action.landing)
        self._end(entry, Gone(machine.terms.handoff, machine.terms.attempt, action.reason))
        engine.ingests.cleanse(quarantined)
        self._context.soon(self.admit)
        self._context.wake()
        self._counts["handoffs_expired" if machine.state is SinkState.EXPIRED else "handoffs_aborted"] += 1
        if entry.wanted:
            failed = Failed(machine.request.request_id, action.kind, action.reason)
            self._context.soon(self._outbox.tell, machine.request.request_id, failed)

    def _end(self, entry: _Open, outcome: ToSource) -> None:
        """Close the transport's side, forget the handoff, and remember how it ended."""
        handoff = entry.machine.terms.handoff
        if entry.peer is not None:
            entry.peer.connection.sink.fence(handoff)
        entry.intake.stop()
        del self._open[handoff]
        del self._by_request[entry.machine.request.request_id]
        self._ended[handoff] = outcome
        while len(self._ended) > MAX_REMEMBERED:
            self._ended.popitem(last=False)

    def _pull(self, entry: _Open, chunk: Chunk) -> None:
        """On the transfer thread."""
        machine, peer = entry.machine, entry.peer
        if peer is None or not machine.is_open:
            return
        began = self._context.clock.now()
        try:
            digest = entry.intake.pull(peer.connection, machine.terms.handoff, chunk, machine.lease.cap)
            self._context.isolation.check()
        except TransportError as error:
            with self._lock:
                self._counts["resends"] += machine.is_open
                self._act(entry, machine.pull_failed(chunk.index, str(error)))
            return
        num_bytes = len(chunk.source_blocks) * machine.terms.wire.counted_block_bytes
        now = self._context.clock.now()
        with self._lock:
            self._links.observe(machine.terms.source, num_bytes, now - began, now)
            entry.num_bytes += num_bytes
            self._counts["kv_bytes_in"] += num_bytes
            self._counts["integrity_failures"] += machine.is_open and digest != chunk.digest
            self._act(entry, machine.pulled(chunk.index, digest, self._context.clock.now()))


def _is_as_granted(terms: GrantTerms, source: WorkerIdentity) -> bool:
    """Whether a source that introduced itself is the one that the gateway described."""
    return (terms.wire, terms.provenance) == (source.capabilities.layout, source.capabilities.provenance)
