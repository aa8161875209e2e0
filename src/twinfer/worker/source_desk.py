"""The source's shell: drives one ``SourceHandoff`` per open handoff.

Events come from the event loop (messages, step outcomes), the transfer thread (digests) and the reclaimer (time); one
lock orders them.
"""

import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from twinfer.core.errors import CapacityError, GrantRefused, InvalidRequest
from twinfer.core.grant import GrantTerms, Use
from twinfer.core.ids import Epoch, HandoffId, RequestId
from twinfer.core.messages import (
    Busy,
    Committed,
    Confirm,
    Done,
    Failed,
    FailureKind,
    Frame,
    Gone,
    Heartbeat,
    Lend,
    OfferAgain,
    Prefill,
    Refused,
    ToSink,
    Withdraw,
)
from twinfer.core.request import GenerationRequest
from twinfer.core.tokens import Timings
from twinfer.engine.base import StepOutcome
from twinfer.handoff.actions import Digest, Release, Show, SourceAction
from twinfer.handoff.grants import UsedGrants, check_for_source, verify
from twinfer.handoff.lease import Lease
from twinfer.handoff.source import SourceHandoff, SourceState
from twinfer.transport.digest import digest_blocks
from twinfer.worker.context import Outbox, WorkerContext
from twinfer.worker.desk_report import DeskReport, describe
from twinfer.worker.transports import Sources

BUSY_RETRY_S = 0.5


class Link(Protocol):
    """The control stream to one sink worker, which connects by itself and again."""

    def send(self, message: ToSink) -> None:
        """Send as soon as the stream is up; from the event loop only."""
        ...


class Links(Protocol):
    """Control streams by sink address."""

    def to(self, address: str) -> Link:
        """The stream to this sink, dialled on first use; from the event loop only."""
        ...

    async def close(self) -> None:
        """End all of them; the next use dials again."""
        ...


@dataclass(slots=True)
class _Open:
    machine: SourceHandoff
    link: Link


class SourceDesk:
    """All handoffs out of this worker."""

    def __init__(self, context: WorkerContext, outbox: Outbox, sources: Sources) -> None:
        self._context = context
        self._outbox = outbox
        self._sources = sources
        self._block_bytes = context.identity.capabilities.layout.counted_block_bytes
        self._chunk_blocks = max(1, context.handoff.chunk_kib * 1024 // self._block_bytes)
        self._lock = threading.Lock()
        self._open: dict[HandoffId, _Open] = {}
        self._by_request: dict[RequestId, HandoffId] = {}
        self._used = UsedGrants()
        self._counts: Counter[str] = Counter()
        self._refused: Counter[str] = Counter()

    def pass_on(self, message: Prefill | Lend, links: Links) -> Busy | Refused | None:
        """Accept a prompt to compute and pass on, or a cached prefix to pass on, or say why not."""
        request = message.request
        try:
            terms = self._verified(message)
            with self._lock:
                if terms.handoff in self._open:
                    self._accept_again(self._open[terms.handoff], terms, links)
                elif objection := self._used.objection(terms):
                    raise GrantRefused(objection)
                elif isinstance(message, Prefill):
                    self._accept(terms, message, links)
                elif not self._lend(terms, message, links):
                    return Refused(request.request_id, "the prefix is not cached here any more")
        except GrantRefused as error:
            self._refused[str(error).partition(":")[0]] += 1
            return Refused(request.request_id, str(error), incompatible=str(error).startswith("incompatible:"))
        except InvalidRequest as error:
            return Refused(request.request_id, str(error))
        except CapacityError:
            return Busy(request.request_id, BUSY_RETRY_S)
        return None

    def computed(self, outcome: StepOutcome) -> None:
        """A step ended: pass on what became final."""
        if not self._by_request:
            return
        with self._lock:
            for part in outcome.exported:
                if entry := self._entry(part.request_id):
                    said = (part.first_block, part.blocks, part.generations)
                    self._act(entry, entry.machine.exported(*said, complete=part.complete))
            for token in outcome.tokens:
                if entry := self._entry(token.request_id):
                    self._act(entry, entry.machine.drew(token))
            for failure in outcome.failed:
                if entry := self._entry(failure.request_id):
                    self._act(entry, entry.machine.cancelled(f"the source's engine failed: {failure.reason}"))

    def hear(self, link: Link, message: OfferAgain | Confirm | Committed | Gone | Heartbeat) -> None:
        """A sink speaks."""
        with self._lock:
            if isinstance(message, Heartbeat):
                self._heard(message.epoch, message.handoffs)
                return
            entry = self._open.get(message.handoff)
            if entry is None or entry.machine.terms.attempt != message.attempt:
                if isinstance(message, Confirm):
                    gone = Withdraw(message.handoff, message.attempt, "gone: the source let go of it already")
                    self._context.soon(link.send, gone)
            elif isinstance(message, Confirm):
                actions = entry.machine.confirm_asked(self._generations(entry))
                self._finish(entry, actions, "the source let go of a block too early")
            elif isinstance(message, OfferAgain):
                self._counts["resends"] += 1
                self._act(entry, entry.machine.asked_again(message.index))
            elif isinstance(message, Committed):
                self._committed(entry)
            else:
                self._act(entry, entry.machine.gone())
                self._tell_failed(entry, f"the decode worker gave up: {message.reason}")

    def refused(self, link: Link, kind: FailureKind, reason: str) -> None:
        """A sink refuses this worker altogether: nothing towards it can succeed."""
        with self._lock:
            for entry in [entry for entry in self._open.values() if entry.link is link]:
                said = f"{kind.value}: {reason}"
                self._act(entry, entry.machine.cancelled(said))
                self._tell_failed(entry, said, kind)

    def reconnected(self, link: Link) -> None:
        """A control stream is new: repeat what was said on the one before, for handoffs still open."""
        with self._lock:
            for entry in [entry for entry in self._open.values() if entry.link is link]:
                self._act(entry, entry.machine.replay())

    def cancel(self, request_id: RequestId) -> None:
        """The gateway no longer wants it."""
        with self._lock:
            if entry := self._entry(request_id):
                self._act(entry, entry.machine.cancelled("cancelled: the gateway withdrew the request"))

    def abandon(self) -> None:
        """End all that is open."""
        with self._lock:
            for entry in list(self._open.values()):
                self._act(entry, entry.machine.cancelled("withdrawn: the source takes leave"))

    def tick(self) -> None:
        """End what is overdue. Called by the reclaimer."""
        now = self._context.clock.now()
        with self._lock:
            for entry in list(self._open.values()):
                silent = entry.machine.lease.silent(now)
                kind = FailureKind.UNREACHABLE if silent else FailureKind.HANDOFF
                self._finish(entry, entry.machine.tick(now), "the handoff's lease ran out", kind)

    def held_for(self, link: Link) -> tuple[HandoffId, ...]:
        """Open handoffs towards one sink, for the heartbeat."""
        with self._lock:
            return tuple(handoff for handoff, entry in self._open.items() if entry.link is link)

    def describe(self) -> DeskReport:
        """Open handoffs, and this desk's counts."""
        now = self._context.clock.now()
        with self._lock:
            machines = [entry.machine for entry in self._open.values()]
            handoffs = ((f"source_{machine.state.value}", machine.lease) for machine in machines)
            return describe(handoffs, self._counts, now)

    def grants_refused(self) -> dict[str, int]:
        """How many, by the word that says why."""
        with self._lock:
            return dict(self._refused)

    def _verified(self, message: Prefill | Lend) -> GrantTerms:
        terms = verify(message.grant, self._context.cluster_key)
        use = Use.DECODE if isinstance(message, Prefill) else Use.CACHE
        objection = check_for_source(terms, message.request, use, self._context.identity, time.time())
        if objection is not None:
            raise GrantRefused(objection)
        return terms

    def _accept(self, terms: GrantTerms, message: Prefill, links: Links) -> None:
        self._context.engine.exports.submit(message.request)
        self._begin(terms, message.request, links)
        self._context.wake()

    def _lend(self, terms: GrantTerms, message: Lend, links: Links) -> bool:
        """Begin to pass a prefix that is final already; false when it is not here any more."""
        blocks = self._context.engine.exports.lend(message.request, terms.end_block)
        if blocks is None:
            return False
        entry = self._begin(terms, message.request, links)
        generations = self._context.engine.exports.generations(blocks)
        self._act(entry, entry.machine.exported(0, blocks, generations, complete=True))
        return True

    def _begin(self, terms: GrantTerms, request: GenerationRequest, links: Links) -> _Open:
        lease = Lease.start(self._context.clock.now(), terms.ttl_s, request.deadline_s)
        machine = SourceHandoff(terms, request, lease, self._chunk_blocks)
        entry = self._open[terms.handoff] = _Open(machine, links.to(terms.sink_address))
        self._by_request[request.request_id] = terms.handoff
        self._used.add(terms, time.time())
        return entry

    def _committed(self, entry: _Open) -> None:
        request_id, fetched = entry.machine.request.request_id, entry.machine.terms.use is Use.CACHE
        self._counts["fetches_out" if fetched else "handoffs_out"] += 1
        self._act(entry, entry.machine.committed())
        if fetched:
            self._context.soon(self._outbox.tell, request_id, Frame(done=(Done(request_id, Timings()),)))

    def _accept_again(self, entry: _Open, terms: GrantTerms, links: Links) -> None:
        """The same KV for another sink; a repeated message of this attempt changes nothing."""
        if terms.attempt > entry.machine.terms.attempt:
            entry.link = links.to(terms.sink_address)
            self._used.add(terms, time.time())
            lease = Lease.start(self._context.clock.now(), terms.ttl_s, entry.machine.request.deadline_s)
            actions = entry.machine.granted_again(terms, lease, self._generations(entry))
            self._finish(entry, actions, "the source let go of a block too early")
            self._counts["handoffs_again"] += 1

    def _generations(self, entry: _Open) -> tuple[int, ...]:
        return self._context.engine.exports.generations(entry.machine.blocks)

    def _entry(self, request_id: RequestId) -> _Open | None:
        handoff = self._by_request.get(request_id)
        return None if handoff is None else self._open[handoff]

    def _heard(self, epoch: Epoch, handoffs: Sequence[HandoffId]) -> None:
        now = self._context.clock.now()
        for handoff in handoffs:
            if (entry := self._open.get(handoff)) and entry.machine.terms.sink_epoch == epoch:
                entry.machine.heard(now)

    def _act(self, entry: _Open, actions: Sequence[SourceAction]) -> None:
        """Carry out what the machine decided; the lock is held."""
        for action in actions:
            if isinstance(action, Digest):
                self._sources.offer(entry.machine.terms.handoff, action.blocks)
                self._context.transfer(entry.machine.request.tier.rank, self._digest, entry, action)
            elif isinstance(action, Show):
                self._sources.offer(entry.machine.terms.handoff, action.blocks)
                self._counts["kv_bytes_out"] += len(action.blocks) * self._block_bytes
            elif isinstance(action, Release):
                self._release(entry)
            else:
                self._context.soon(entry.link.send, action.message)

    def _finish(
        self, entry: _Open, actions: Sequence[SourceAction], reason: str, kind: FailureKind = FailureKind.HANDOFF
    ) -> None:
        """Carry out what may be the end, and then say why; the lock is held."""
        self._act(entry, actions)
        if actions and not entry.machine.is_open:
            self._tell_failed(entry, reason, kind)

    def _release(self, entry: _Open) -> None:
        terms, request_id = entry.machine.terms, entry.machine.request.request_id
        self._sources.release(terms.handoff)
        self._context.engine.exports.release(request_id)
        self._context.wake()
        del self._open[terms.handoff]
        del self._by_request[request_id]
        if entry.machine.state is SourceState.EXPIRED:
            self._counts["handoffs_expired"] += 1
        elif entry.machine.state is SourceState.ABORTED:
            self._counts["handoffs_aborted"] += 1

    def _tell_failed(self, entry: _Open, reason: str, kind: FailureKind = FailureKind.HANDOFF) -> None:
        request_id = entry.machine.request.request_id
        self._context.soon(self._outbox.tell, request_id, Failed(request_id, kind, reason))

    def _digest(self, entry: _Open, action: Digest) -> None:
        """On the transfer thread."""
        if not entry.machine.is_open:
            return
        digest = digest_blocks(self._context.memory, action.blocks)
        with self._lock:
            if entry.machine.is_open:
                self._counts["kv_bytes_out"] += len(action.blocks) * self._block_bytes
            self._act(entry, entry.machine.digested(action.index, action.blocks, digest))
