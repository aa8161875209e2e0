"""A worker in virtual time: the product's engine, reception and desks; only threads, sockets and clocks are replaced.

In some worlds workers differ in tokens per block and KV dtype, so that most handoffs are converted on arrival.

A crash throws one incarnation away with everything it held and scheduled; its memory stays readable to peers that
mapped it, as with shared memory. The next incarnation has another epoch and a pool full of old bytes.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

import msgspec

from tests.fakes import KEY, MODEL, POOL, token_elements
from tests.fuzz.faults import Faults
from tests.fuzz.schedule import Schedule
from twinfer.core.capabilities import Endpoint, Role, WorkerIdentity
from twinfer.core.config import HandoffConfig
from twinfer.core.errors import TransportError
from twinfer.core.grant import Proof
from twinfer.core.ids import Epoch, HandoffId, RequestId, WorkerId
from twinfer.core.layout import KVDtype
from twinfer.core.messages import Confirmed, Heartbeat, Offer, Seal, ToSink, ToSource, ToWorker, Withdraw
from twinfer.core.tokens import Token
from twinfer.engine.assemble import assemble, emulated_capabilities
from twinfer.engine.emulated import EmulatedRunner
from twinfer.engine.ingest import IngestLedger
from twinfer.engine.paged import PagedEngine
from twinfer.kv.elements import ElementView
from twinfer.transport.base import TransportCapabilities
from twinfer.transport.digest import digest_views
from twinfer.worker.context import WorkerContext
from twinfer.worker.isolation import Isolation
from twinfer.worker.reception import Reception
from twinfer.worker.sessions import GatewayOutlet
from twinfer.worker.sink_desk import SourcePeer
from twinfer.worker.transports import Connection, Sources

HANDOFF = HandoffConfig(lease_s=2.0, heartbeat_s=0.5, chunk_kib=1, max_parked_fraction=0.8)
POOL_TOKENS = 192
BLOCK_TOKENS = (4, 4, 3, 8, 16)
DTYPES: tuple[KVDtype, ...] = ("fp32", "fp32", "bf16", "fp16", "fp8")
STEP_S = 0.004
TRANSFER_S = 0.01
TICK_S = 0.25
RESTART_S = 0.5
MAX_PULLS = 2
LAND_LATE_S = 0.05


class Form(NamedTuple):
    """How a worker lays its KV out, and what its commits rest on."""

    block_tokens: int
    kv_dtype: KVDtype
    commit: Proof

    @classmethod
    def draw(cls, schedule: Schedule) -> "Form":
        """Any."""
        dice = schedule.random
        return cls(dice.choice(BLOCK_TOKENS), dice.choice(DTYPES), dice.choice(tuple(Proof)))


def _check_commits(ledger: IngestLedger, pool: ElementView) -> None:
    """See, at every commit, that the blocks hold the KV of their tokens, whether or not anybody will ask for it."""
    commit = ledger.commit

    def checked(request_id: RequestId, first_token: Token | None, now: float) -> None:
        ingest = ledger._open[request_id]
        request, end = ingest.sequence.request, ingest.to_come.stop
        expected = token_elements(request.prompt[:end], request.tenant)
        if end and not (pool.read_tokens(ingest.prefix + ingest.bound, end) == expected).all():
            raise AssertionError(f"{request_id} commits KV that is not that of its tokens")
        commit(request_id, first_token, now)

    ledger.commit = checked  # type: ignore[method-assign]


class Memory:
    """A pool's bytes, as transports see them."""

    def __init__(self, num_blocks: int, block_bytes: int, fill: int) -> None:
        self.num_blocks, self.block_bytes, self.fd = num_blocks, block_bytes, None
        self.view = memoryview(bytearray([fill]) * (num_blocks * block_bytes))

    def block(self, index: int) -> memoryview:
        """One block."""
        return self.view[index * self.block_bytes : (index + 1) * self.block_bytes]


@dataclass
class Wire:
    """A pool as its peers reach it."""

    memory: Memory
    endpoint: Endpoint
    block_bytes: int

    def close(self) -> None:
        """Nothing to let go of."""


class VirtualSink:
    """Pulls by copying, with the accidents of the world. Admission and fences are the contract's."""

    capabilities = TransportCapabilities("virtual", "pull", True, True, False, False, ("host",), 1 << 20)

    def __init__(self, schedule: Schedule, faults: Faults) -> None:
        self._schedule = schedule
        self._faults = faults
        self._admitted: set[HandoffId] = set()

    def connect(self, endpoint: Endpoint, block_bytes: int) -> Wire:
        """Peers are handed over ready-made."""
        raise TransportError(f"nobody listens at {endpoint.address}")

    def admit(self, handoff: HandoffId) -> None:
        """Bytes of this handoff may land."""
        self._admitted.add(handoff)

    def pull(
        self,
        peer: Wire,
        handoff: HandoffId,
        source_blocks: Sequence[int],
        destinations: Sequence[memoryview],
        deadline: float,
        *,
        digest: bool = True,
    ) -> int:
        """Copy, perhaps badly; a link whose bytes nobody checks is trusted not to change them."""
        del deadline
        if handoff not in self._admitted:
            raise TransportError("not admitted")
        if self._schedule.chance("fail", self._faults.fail):
            raise TransportError("the link broke")
        for block, destination in zip(source_blocks, destinations, strict=True):
            destination[:] = peer.memory.block(block)
        self._land_again(peer, handoff, source_blocks, destinations)
        if not digest:
            return 0
        if self._schedule.chance("corrupt", self._faults.corrupt):
            victim = self._schedule.random.choice(destinations)
            victim[self._schedule.random.randrange(len(victim))] ^= 1 << self._schedule.random.randrange(8)
        return digest_views(destinations)

    def _land_again(
        self, peer: Wire, handoff: HandoffId, source_blocks: Sequence[int], destinations: Sequence[memoryview]
    ) -> None:
        """Bytes of a pull may land a second time, later; never after the fence."""
        if not self._schedule.chance("land late", self._faults.land_late):
            return
        arrived = [bytes(peer.memory.block(block)) for block in source_blocks]

        def land() -> None:
            if handoff in self._admitted:
                for data, destination in zip(arrived, destinations, strict=True):
                    destination[:] = data

        self._schedule.after(self._schedule.random.random() * LAND_LATE_S, land)

    def fence(self, handoff: HandoffId) -> None:
        """Nothing of it lands any more."""
        self._admitted.discard(handoff)

    def close(self) -> None:
        """Fence everything."""
        self._admitted.clear()


@dataclass(eq=False)
class Life:
    """One incarnation of a worker."""

    identity: WorkerIdentity
    memory: Memory
    reception: Reception
    engine: PagedEngine
    stepping: bool = False
    alive: bool = True
    peers: dict[Epoch, SourcePeer] = field(default_factory=dict)
    isolation: Isolation = field(default_factory=Isolation)


class Network(Protocol):
    """Delivers between workers, and tells of deaths."""

    def to_sink(self, source: Life, address: str, message: ToSink) -> None:
        """From a source to the sink at an address."""
        ...

    def to_source(self, sink: Life, source: Life, message: ToSource) -> None:
        """From a sink to one incarnation of a source."""
        ...

    def died(self, worker: "VirtualWorker", life: Life) -> None:
        """An incarnation is gone."""
        ...


@dataclass(eq=False)
class SinkLink:
    """A source's control stream to a sink, over the world's network."""

    source: "VirtualWorker"
    life: Life
    address: str

    def send(self, message: ToSink) -> None:
        """Send, if this incarnation lives."""
        if self.life.alive:
            self.source.network.to_sink(self.life, self.address, message)


@dataclass(eq=False)
class Links:
    """Control streams of one incarnation."""

    source: "VirtualWorker"
    life: Life
    by_address: dict[str, SinkLink] = field(default_factory=dict)

    def to(self, address: str) -> SinkLink:
        """The stream to a sink."""
        return self.by_address.setdefault(address, SinkLink(self.source, self.life, address))


class VirtualWorker:
    """A worker over its incarnations.

    Args:
        network: delivers between workers and gateways; set by the world.
    """

    network: Network

    def __init__(self, name: str, role: Role, schedule: Schedule, faults: Faults, form: Form) -> None:
        self.name = WorkerId(name)
        self._role = role
        self._schedule = schedule
        self._faults = faults
        self._handoff = msgspec.structs.replace(HANDOFF, commit=form.commit)
        self._num_lives = 0
        self._pool = msgspec.structs.replace(
            POOL,
            block_tokens=form.block_tokens,
            kv_dtype=form.kv_dtype,
            accept=() if schedule.chance("picky", faults.picky) else ("*",),
        )
        self._capabilities = msgspec.structs.replace(
            emulated_capabilities(MODEL, self._pool),
            num_blocks=POOL_TOKENS // self._pool.block_tokens,
            max_context_tokens=POOL_TOKENS,
        )
        self.life = self._begin()
        self._tick()
        self._beat()

    @property
    def epoch(self) -> Epoch:
        """Of the present incarnation."""
        return self.life.identity.epoch

    def crash(self) -> None:
        """Die, and come back after a while as somebody else."""
        life = self.life
        if not life.alive:
            return
        life.alive = False
        self.network.died(self, life)
        self._schedule.after(RESTART_S, self._restart)

    def maybe_crash(self) -> None:
        """After anything it did, a worker may die."""
        if self._role is Role.PREFILL:
            dies = self._schedule.chance("crash source", self._faults.crash_source)
        else:
            dies = self._schedule.chance("crash sink", self._faults.crash_sink)
        if dies:
            self.crash()

    def take(self, message: ToWorker, gateway: GatewayOutlet) -> None:
        """A gateway speaks."""
        if self.life.alive:
            self.life.reception.take(message, gateway, self._links)

    def peer_of(self, source: Life) -> SourcePeer:
        """A source as this incarnation reaches it."""
        known = self.life.peers.get(source.identity.epoch)
        if known is None:
            sink = VirtualSink(self._schedule, self._faults)
            endpoint = Endpoint("virtual", source.identity.worker, "here")
            wire = Wire(source.memory, endpoint, source.memory.block_bytes)
            me = self.life

            def send(message: ToSource) -> None:
                if me.alive:
                    self.network.to_source(me, source, message)

            known = SourcePeer(source.identity, Connection(sink, wire, endpoint), send)
            self.life.peers[source.identity.epoch] = known
        return known

    def hear(self, source: Life, message: Offer | Seal | Confirmed | Withdraw | Heartbeat) -> None:
        """A source speaks."""
        if self.life.alive:
            self.life.reception.sink.hear(self.peer_of(source), message)

    def _begin(self) -> Life:
        self._num_lives += 1
        layout, num_blocks = self._capabilities.layout, self._capabilities.num_blocks
        memory = Memory(num_blocks, layout.block_bytes, fill=0x40 + self._num_lives % 8)
        epoch = Epoch(f"{self.name}-{self._num_lives}")
        identity = WorkerIdentity(self.name, epoch, self._role, self._capabilities, f"virtual:{self.name}")
        runner = EmulatedRunner(memory.view, layout, self._capabilities.vocab_size, POOL.emulation, self._schedule)
        engine = assemble(self._pool, self._capabilities, runner, KEY, self._schedule)
        engine.exports.max_parked_blocks = int(num_blocks * HANDOFF.max_parked_fraction)
        life: Life

        _check_commits(engine.ingests._ledger, ElementView(memory.view, layout))

        def transfer(rank: int, call: Callable[..., None], *args: object) -> None:
            stalled = self._schedule.chance("stall", self._faults.stall)
            longest_s = HANDOFF.lease_s if stalled else TRANSFER_S
            self._schedule.after(self._schedule.random.random() * longest_s, lambda: life.alive and call(*args))

        context = WorkerContext(
            identity,
            KEY,
            engine,
            memory,  # type: ignore[arg-type]
            self._schedule,
            self._handoff,
            self._pool.accept,
            transfer=transfer,
            soon=lambda call, *args: self._schedule.after(0.0, lambda: life.alive and call(*args)),
            wake=lambda: self._wake(life),
            isolation=Isolation(self._schedule),
        )
        reception = Reception(context, Sources((), ()), MAX_PULLS)
        life = Life(identity, memory, reception, engine, isolation=context.isolation)
        self._links = Links(self, life)
        return life

    def _restart(self) -> None:
        self.life = self._begin()

    def _wake(self, life: Life) -> None:
        if not life.stepping and life.alive:
            life.stepping = True
            self._schedule.after(self._schedule.random.random() * STEP_S, lambda: self._step(life))

    def _step(self, life: Life) -> None:
        life.stepping = False
        if not life.alive:
            return
        outcome = life.engine.step()
        if outcome is not None:
            life.reception.deliver(outcome)
            self._let_go(life)
            self._wake(life)
            self.maybe_crash()

    def links(self, life: Life, address: str) -> SinkLink | None:
        """The stream of an incarnation to a sink, while it lives."""
        return self._links.to(address) if life.alive else None

    def _let_go(self, life: Life) -> None:
        """The engine lets go of KV that was offered, and tells nobody; only those who ask will know."""
        for entry in list(life.reception.source._open.values()):
            terms = entry.machine.terms
            if terms.proof is Proof.GENERATION and self._schedule.chance("let go", self._faults.let_go):
                life.engine.exports.release(entry.machine.request.request_id)

    def _tick(self) -> None:
        if self.life.alive:
            desks = (self.life.reception.source, self.life.reception.sink)
            held = [entry.machine.lease for desk in desks for entry in desk._open.values()]  # type: ignore[attr-defined]
            if held and self._schedule.chance("jump", self._faults.jump):
                for lease in held:
                    lease.deadline = self._schedule.now()
            self.life.reception.tick()
            self._wake(self.life)
        self._schedule.after(TICK_S, self._tick)

    def _beat(self) -> None:
        life = self.life
        if life.alive:
            for link in self._links.by_address.values():
                if handoffs := life.reception.source.held_for(link):
                    link.send(Heartbeat(life.identity.epoch, handoffs))
            for peer in life.peers.values():
                if handoffs := life.reception.sink.held_from(peer.identity):
                    peer.send(Heartbeat(life.identity.epoch, handoffs))
        self._schedule.after(HANDOFF.heartbeat_s, self._beat)
