"""One fuzzed world: a few workers, a gateway, a network with faults, and the checks at its end."""

from collections.abc import Callable
from dataclasses import dataclass

import msgspec

from tests.fuzz.faults import Faults
from tests.fuzz.schedule import Schedule
from tests.fuzz.virtual_gateway import DEADLINE_S, VirtualGateway, Wrong
from tests.fuzz.virtual_worker import HANDOFF, Form, Life, Memory, VirtualWorker
from twinfer.core.capabilities import Role
from twinfer.core.grant import Grant, Use
from twinfer.core.ids import Epoch, WorkerId
from twinfer.core.manifest import Chunk, root_digest
from twinfer.core.messages import (
    Cancel,
    Committed,
    Confirm,
    Gone,
    Heartbeat,
    Lend,
    Offer,
    OfferAgain,
    Prefill,
    Seal,
    SinkHello,
    SourceHello,
    ToGateway,
    ToSink,
    ToSource,
    ToWorker,
    Withdraw,
)
from twinfer.core.tokens import Token
from twinfer.transport.digest import digest_blocks

REQUESTS = 24
ARRIVALS_S = 0.5
LATENCY_S = 0.001
DELAY_S = 0.2
NOTICE_S = 0.3


@dataclass(eq=False)
class Session:
    """A gateway's stream, as one incarnation of a worker knows it."""

    world: "World"
    gateway: VirtualGateway
    worker: VirtualWorker
    life: Life

    def send_soon(self, message: ToGateway) -> None:
        """Send to the gateway, if this incarnation lives."""
        if self.life.alive:
            gateway, name = self.gateway, self.worker.name
            self.world.send(lambda: gateway.hear(name, message))


class World:
    """Everything, from one seed."""

    def __init__(self, seed: int, faults: Faults) -> None:
        self.schedule = Schedule(seed)
        self._faults = faults
        roles = [("p0", Role.PREFILL), ("p1", Role.PREFILL), ("d0", Role.DECODE), ("d1", Role.DECODE)]
        forms = self._forms(len(roles))
        self.workers = {
            WorkerId(name): VirtualWorker(name, role, self.schedule, faults, form)
            for (name, role), form in zip(roles, forms, strict=True)
        }
        for worker in self.workers.values():
            worker.network = self
        self._sessions: dict[tuple[VirtualGateway, Epoch], Session] = {}
        self.gateways = [self._new_gateway()]

    @property
    def num_handoffs(self) -> int:
        """Granted handoffs so far."""
        return sum(gateway.num_handoffs for gateway in self.gateways)

    def run(self) -> None:
        """Let clients come and go, let everything end, and check.

        Raises:
            Wrong: an answer is wrong or missing, or something was not given back.
        """
        for number in range(REQUESTS):
            self.schedule.after(self.schedule.random.random() * ARRIVALS_S, lambda n=number: self._arrive(n))
        self.schedule.run_until(ARRIVALS_S + DEADLINE_S + HANDOFF.lease_s + 1.0)
        if any(map(unrest, self.workers.values())):
            # Nobody heard that it was over, and two that keep each other alive end by their own deadlines.
            self.schedule.run_until(ARRIVALS_S + 2 * DEADLINE_S + 1.0)
        for gateway in self.gateways:
            gateway.check()
        for worker in self.workers.values():
            if found := unrest(worker):
                raise Wrong(found)

    def send(self, arrive: Callable[[], object]) -> None:
        """Bring a message over the network: late, twice, or not at all."""
        if self.schedule.chance("lose", self._faults.lose):
            return
        dice = self.schedule.random
        copies = 2 if self.schedule.chance("repeat", self._faults.repeat) else 1
        for _ in range(copies):
            late = self.schedule.chance("delay", self._faults.delay)
            self.schedule.after(dice.random() * DELAY_S if late else LATENCY_S, arrive)

    def to_worker(self, gateway: VirtualGateway, name: WorkerId, message: ToWorker) -> None:
        """From a gateway to whatever incarnation of a worker is there on arrival."""
        if isinstance(message, Cancel) and self.schedule.chance("forsake", self._faults.forsake):
            return
        forged = isinstance(message, Prefill | Lend) and self.schedule.chance("forge", self._faults.forge)
        said = self._forged(message) if forged and isinstance(message, Prefill | Lend) else message
        worker = self.workers[name]

        def arrive() -> None:
            if not worker.life.alive:
                return
            before = worker.life.reception.load(healthy=True).handoffs
            worker.take(said, self._session(gateway, worker))
            worker.maybe_crash()
            if forged and worker.life.reception.load(healthy=True).handoffs != before:
                raise Wrong(f"{name} accepted a forged grant")

        self.send(arrive)

    def to_sink(self, source: Life, address: str, message: ToSink) -> None:
        """From a source to whatever incarnation of the sink is there on arrival."""
        sink = self.workers[WorkerId(address.removeprefix("virtual:"))]
        if isinstance(message, SourceHello) or source.isolation.left_s or sink.life.isolation.left_s:
            return
        if isinstance(message, Withdraw) and self.schedule.chance("forsake", self._faults.forsake):
            return
        if isinstance(message, Offer) and self.schedule.chance("ghost", self._faults.ghost):
            self._haunt(source, sink, message)
        said = message
        self.send(lambda: (sink.hear(source, said), sink.maybe_crash()))

    def to_source(self, sink: Life, source: Life, message: ToSource) -> None:
        """From a sink to one incarnation of a source."""
        if sink.isolation.left_s or source.isolation.left_s:
            return
        if isinstance(message, OfferAgain | Confirm | Committed | Gone | Heartbeat):
            said, worker, address = message, self.workers[source.identity.worker], sink.identity.control

            def arrive() -> None:
                if (link := worker.links(source, address)) is not None:
                    source.reception.source.hear(link, said)

            self.send(arrive)
        else:
            assert isinstance(message, SinkHello)

    def died(self, worker: VirtualWorker, life: Life) -> None:
        """Gateways and sinks notice after a while; the sources of a dead sink notice by their leases."""

        def notice() -> None:
            for gateway in self.gateways:
                gateway.worker_lost(worker.name)
            for other in self.workers.values():
                peer = other.life.peers.get(life.identity.epoch)
                if peer is not None and other.life.alive:
                    other.life.reception.sink.source_lost(peer)

        self.schedule.after(self.schedule.random.random() * NOTICE_S, notice)

    def _arrive(self, number: int) -> None:
        if self.schedule.chance("crash gateway", self._faults.crash_gateway * REQUESTS):
            self._crash_gateway()
        if self.schedule.chance("isolate", self._faults.isolate):
            self._isolate(self.schedule.random.choice(list(self.workers.values())).life)
        self.gateways[-1].start(number)

    def _isolate(self, life: Life) -> None:
        """Cut a worker off from the others for up to two leases: both ends of its streams notice at once."""
        life.isolation.begin(self.schedule.random.random() * 2 * HANDOFF.lease_s)
        for peer in life.peers.values():
            life.reception.sink.source_lost(peer)
        for other in self.workers.values():
            if (peer := other.life.peers.get(life.identity.epoch)) is not None:
                other.life.reception.sink.source_lost(peer)

    def _crash_gateway(self) -> None:
        dead = self.gateways[-1]
        dead.crash()
        self.gateways.append(self._new_gateway())

        def notice() -> None:
            for worker in self.workers.values():
                session = self._sessions.get((dead, worker.life.identity.epoch))
                if session is not None and worker.life.alive:
                    worker.life.reception.gateway_left(session)

        self.schedule.after(self.schedule.random.random() * NOTICE_S, notice)

    def _forms(self, num_workers: int) -> list[Form]:
        """How the workers lay KV out: alike, in blocks of other sizes, or with other elements too."""
        common = Form.draw(self.schedule)
        if not self.schedule.chance("differ", self._faults.differ):
            return [common] * num_workers
        forms = [Form.draw(self.schedule) for _ in range(num_workers)]
        one_dtype = self.schedule.random.random() < 0.5  # then they can fetch from each other
        return [form._replace(kv_dtype=common.kv_dtype) for form in forms] if one_dtype else forms

    def _new_gateway(self) -> VirtualGateway:
        return VirtualGateway(self.workers, self.schedule, self._faults, self.to_worker)

    def _session(self, gateway: VirtualGateway, worker: VirtualWorker) -> Session:
        key = (gateway, worker.life.identity.epoch)
        return self._sessions.setdefault(key, Session(self, gateway, worker, worker.life))

    def _forged(self, message: Prefill | Lend) -> Prefill | Lend:
        dice = self.schedule.random
        terms = bytearray(message.grant.terms)
        terms[dice.randrange(len(terms))] ^= 1 << dice.randrange(8)
        return msgspec.structs.replace(message, grant=Grant(bytes(terms), message.grant.signature))

    def _haunt(self, source: Life, sink: VirtualWorker, offer: Offer) -> None:
        """An earlier start of the source offers and seals the same handoff, flawlessly, over other bytes."""
        entry = sink.life.reception.sink._open.get(offer.handoff)
        if entry is None:
            return
        machine = entry.machine
        memory = Memory(source.memory.num_blocks, source.memory.block_bytes, fill=0x3F)
        identity = msgspec.structs.replace(source.identity, epoch=Epoch(f"{source.identity.worker}-ghost"))
        ghost = Life(identity, memory, source.reception, source.engine, alive=False)
        terms = machine.terms
        blocks = tuple(range(terms.end_block - terms.start_block))
        chunk = Chunk(0, terms.start_block, blocks, digest_blocks(memory, blocks))
        token = Token(machine.request.request_id, 0, 1) if terms.use is Use.DECODE else None
        seal = Seal(offer.handoff, offer.attempt, 1, root_digest([chunk.digest]), token)
        sink.hear(ghost, msgspec.structs.replace(offer, chunk=chunk))
        sink.hear(ghost, seal)


def unrest(worker: VirtualWorker) -> str:
    """What a worker holds, or counts twice, although nothing is going on; empty when all is well."""
    if not worker.life.alive:
        return ""
    report = worker.life.reception.load(healthy=True)
    blocks, counters = report.blocks, report.counters
    if blocks.live or blocks.promised or blocks.quarantined or blocks.free + blocks.cached != blocks.total:
        return f"{worker.name} leaks: {blocks}"
    if report.handoffs or report.running or report.waiting:
        return f"{worker.name} is not idle: {report}"
    if sum(report.handoffs_by_transport.values()) != counters.handoffs_in + counters.fetches_in:
        return f"{worker.name} counts handoffs twice: {report}"
    return ""
