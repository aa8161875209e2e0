"""Two workers' receptions, desks, engines and transports, real ones, driven by hand in one thread.

Only what carries messages is replaced: what a worker says is queued, and ``Pair.settle`` delivers, steps and transfers
until nothing is left to do.
"""

import itertools
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from tests.fakes import KEY, MODEL, POOL
from twinfer.core.capabilities import Capabilities, Role, WorkerIdentity
from twinfer.core.clock import Clock, MonotonicClock
from twinfer.core.config import EmulationConfig, HandoffConfig, LinkConfig, PoolConfig
from twinfer.core.grant import Proof, Use
from twinfer.core.ids import Epoch, HandoffId, RequestId, WorkerId
from twinfer.core.layout import KVDtype
from twinfer.core.messages import (
    Cancel,
    Failed,
    Frame,
    Generate,
    Granted,
    Lend,
    Prefill,
    Refused,
    Reserve,
    ToGateway,
    ToSink,
)
from twinfer.core.request import GenerationRequest
from twinfer.core.tokens import Token
from twinfer.engine.assemble import assemble, emulated_capabilities, num_host_blocks
from twinfer.engine.emulated import EmulatedRunner
from twinfer.engine.paged import PagedEngine, Runner
from twinfer.kv.memory import PoolMemory
from twinfer.transport.host import host_id
from twinfer.transport.inproc import InprocHub, InprocSink, InprocSource
from twinfer.transport.tcp import TcpSource
from twinfer.worker.context import WorkerContext
from twinfer.worker.reception import Reception
from twinfer.worker.sink_desk import SourcePeer
from twinfer.worker.transports import Sinks, Sources, make_sinks, start_sources

EMULATION = EmulationConfig(num_layers=2, num_kv_heads=2, head_dim=8, vocab_size=1000)
HANDOFF = HandoffConfig(chunk_kib=1)
POOL_TOKENS = 1536
MAX_PULLS = 4

Calls = deque[Callable[[], object]]


@dataclass(eq=False)
class Outlet:
    """A gateway's stream: keeps what it is told."""

    said: list[ToGateway] = field(default_factory=list)

    def send_soon(self, message: ToGateway) -> None:
        self.said.append(message)


class Member:
    """One worker of a pair.

    Args:
        calls: where it queues what is to be done later.
        ways: its transports, both ways.
    """

    def __init__(
        self,
        name: str,
        made: tuple[PagedEngine, PoolMemory],
        accept: tuple[str, ...],
        calls: Calls,
        ways: "Ways",
        clock: Clock,
        commit: Proof = Proof.DIGEST,
    ) -> None:
        engine, memory = made
        self.engine = engine
        self.memory = memory
        self.sources, self.sinks = ways(memory)
        self.identity = WorkerIdentity(
            WorkerId(name), Epoch(f"{name}-1"), Role.BOTH, engine.capabilities, name, self.sources.endpoints
        )
        context = WorkerContext(
            self.identity,
            KEY,
            engine,
            memory,
            clock,
            msgspec.structs.replace(HANDOFF, commit=commit),
            accept,
            transfer=lambda rank, call, *args: calls.append(lambda: call(*args)),
            soon=lambda call, *args: calls.append(lambda: call(*args)),
            wake=lambda: None,
        )
        self.reception = Reception(context, self.sources, MAX_PULLS)

    def step(self) -> bool:
        """Compute one step; whether there was one."""
        outcome = self.engine.step()
        if outcome is not None:
            self.reception.deliver(outcome)
        return outcome is not None

    def close(self) -> None:
        """Return everything."""
        self.sources.close()
        self.sinks.close()
        self.memory.close()


Ways = Callable[[PoolMemory], tuple[Sources, Sinks]]


def inproc_ways(hub: InprocHub) -> Ways:
    """Transports within this process."""

    def ways(memory: PoolMemory) -> tuple[Sources, Sinks]:
        source = InprocSource(hub)
        return Sources((source,), (source.start(memory),)), Sinks({"inproc": InprocSink(hub)}, host_id(), "inproc")

    return ways


def real_ways(transport: str) -> Ways:
    """A worker's own transports."""
    link = LinkConfig(transport=transport)  # type: ignore[arg-type]
    return lambda memory: (start_sources(link, memory, "", TcpSource()), make_sinks(link))


@dataclass(eq=False)
class Pair:
    """A source, a sink, and everything between them."""

    source: Member
    sink: Member
    calls: Calls
    gateway: Outlet = field(default_factory=Outlet)
    _numbers: "itertools.count[int]" = field(default_factory=itertools.count)
    _peer: SourcePeer | None = None

    def to(self, address: str) -> "Pair":
        """The source's control streams: this pair is the only one."""
        assert address == self.sink.identity.control
        return self

    def send(self, message: ToSink) -> None:
        """From the source to the sink."""
        peer = self.meet()
        self.calls.append(lambda: self.sink.reception.sink.hear(peer, message))  # type: ignore[arg-type]

    def meet(self) -> SourcePeer:
        """The source as the sink knows it after their greeting."""
        if self._peer is None:
            them = self.source.identity
            assert self.sink.reception.sink.objection(them) is None
            hear = self.source.reception.source.hear
            self._peer = SourcePeer(
                them,
                self.sink.sinks.connect(them),
                lambda message: self.calls.append(lambda: hear(self, message)),  # type: ignore[arg-type]
            )
        return self._peer

    def reserve(
        self, request: GenerationRequest, capabilities: Capabilities | None = None, use: Use = Use.DECODE
    ) -> Granted | Refused:
        """Ask the sink for room; ``capabilities`` are those of the source, if not said otherwise."""
        handoff, them = HandoffId(f"h{next(self._numbers)}"), self.source.identity
        said = capabilities or them.capabilities
        self.sink.reception.take(Reserve(request, handoff, 1, them.worker, them.epoch, said, use), self.gateway, self)
        answer = self.gateway.said.pop()
        assert isinstance(answer, Granted | Refused), answer
        return answer

    def hand_over(self, request: GenerationRequest) -> tuple[list[Token], int]:
        """Prefill on the source, decode on the sink: the tokens, and how many of the prompt's the sink had."""
        granted = self.reserve(request)
        assert isinstance(granted, Granted), granted
        self.source.reception.take(Prefill(request, granted.grant), self.gateway, self)
        return self.settle(), granted.cached_tokens

    def fetch(self, request: GenerationRequest) -> int:
        """Bring what the source has cached of the prompt to the sink, which must succeed; how many tokens it had."""
        granted = self.reserve(request, use=Use.CACHE)
        assert isinstance(granted, Granted), granted
        self.source.reception.take(Lend(request, granted.grant), self.gateway, self)
        assert self.settle() == []
        return granted.cached_tokens

    def generate(self, request: GenerationRequest, provenance: str = "", member: Member | None = None) -> list[Token]:
        """Both phases on one worker, the sink if not said otherwise."""
        (member or self.sink).reception.take(Generate(request, (), provenance), self.gateway, self)
        return self.settle()

    def cancel(self, request_id: RequestId) -> None:
        """Forget a request on both."""
        for member in (self.source, self.sink):
            member.reception.take(Cancel(request_id), self.gateway, self)
        self.settle()

    def settle(self) -> list[Token]:
        """Do what is left to do; the tokens that came, each index once."""
        while self.calls or self.source.step() or self.sink.step():
            while self.calls:
                self.calls.popleft()()
        tokens: dict[int, Token] = {}
        for message in self.gateway.said:
            assert not isinstance(message, Failed | Refused), message
            for token in message.tokens if isinstance(message, Frame) else ():
                assert tokens.setdefault(token.index, token).token_id == token.token_id
        self.gateway.said.clear()
        assert sorted(tokens) == list(range(len(tokens)))
        return [tokens[index] for index in range(len(tokens))]

    def assert_idle(self) -> None:
        """Nothing is held on either side."""
        for member in (self.source, self.sink):
            report = member.reception.load(healthy=True)
            assert (report.blocks.live, report.blocks.promised, report.blocks.quarantined) == (0, 0, 0)
            assert report.handoffs == {}

    def close(self) -> None:
        """Return everything."""
        if self._peer is not None:
            self._peer.connection.peer.close()
        self.source.close()
        self.sink.close()


def make_pair(
    make: Callable[[PoolConfig], tuple[PagedEngine, PoolMemory]],
    pools: tuple[PoolConfig, PoolConfig],
    ways: Ways,
    commits: tuple[Proof, Proof] = (Proof.DIGEST, Proof.DIGEST),
    clock: Clock | None = None,
) -> Pair:
    """A source and a sink whose engines ``make`` makes of two pools.

    Args:
        commits: what commits into each of them rest on.
        clock: that of their leases.
    """
    calls: Calls = deque()
    clock = clock or MonotonicClock()
    source, sink = (
        Member(name, make(pool), pool.accept, calls, ways, clock, commit)
        for name, pool, commit in zip("pd", pools, commits, strict=True)
    )
    return Pair(source, sink, calls)


def emulated_pool(block_tokens: int, dtype: KVDtype, accept: tuple[str, ...] = ("*",)) -> PoolConfig:
    """A pool of emulated workers."""
    return msgspec.structs.replace(
        POOL, block_tokens=block_tokens, kv_dtype=dtype, accept=accept, max_step_tokens=40, emulation=EMULATION
    )


def emulated(pool: PoolConfig, num_tokens: int = POOL_TOKENS) -> tuple[PagedEngine, PoolMemory]:
    """An emulated engine on memory full of what was there before."""
    num_blocks = num_tokens // pool.block_tokens
    capabilities = msgspec.structs.replace(
        emulated_capabilities(MODEL, pool), num_blocks=num_blocks, max_context_tokens=num_tokens
    )
    memory, blocks = _memory(pool, capabilities)
    memory.view[:] = b"\x5a" * len(memory.view)
    clock = MonotonicClock()
    runner = EmulatedRunner(blocks, capabilities.layout, capabilities.vocab_size, pool.emulation, clock)
    return _with_host_tier(assemble(pool, capabilities, runner, KEY, clock), pool, memory), memory


def native_maker(
    source: str, cache_dir: Path, num_tokens: int = POOL_TOKENS, make_runner: Callable[..., Runner] | None = None
) -> Callable[[PoolConfig], tuple[PagedEngine, PoolMemory]]:
    """Makes native engines of one checkpoint, on the devices of their pools."""
    from twinfer.engine.native import native_capabilities, native_model, native_runner

    model = msgspec.structs.replace(MODEL, source=source)

    def make(pool: PoolConfig) -> tuple[PagedEngine, PoolMemory]:
        served = native_model(model, pool, cache_dir)
        num_blocks = num_tokens // pool.block_tokens
        capabilities = msgspec.structs.replace(
            native_capabilities(served, model, pool), num_blocks=num_blocks, max_context_tokens=num_tokens
        )
        memory, blocks = _memory(pool, capabilities)
        runner = (make_runner or native_runner)(served, capabilities, pool.device, blocks, cache_dir)
        engine = assemble(pool, capabilities, runner, KEY, MonotonicClock())
        return _with_host_tier(engine, pool, memory), memory

    return make


def _memory(pool: PoolConfig, capabilities: Capabilities) -> tuple[PoolMemory, memoryview]:
    """Memory for pool and host tier, and the pool's part of it."""
    layout, num_blocks = capabilities.layout, capabilities.num_blocks
    memory = PoolMemory(num_blocks + num_host_blocks(pool, layout), layout.block_bytes, prefault=False)
    return memory, memory.view[: num_blocks * layout.block_bytes]


def _with_host_tier(engine: PagedEngine, pool: PoolConfig, memory: PoolMemory) -> PagedEngine:
    engine.use_host_tier(memory.view, pool.max_host_fraction)
    return engine
