"""Whole workers in one process: real engines, threads, control plane and shared memory, only their sizes are small."""

import asyncio
import contextlib
import threading
import time
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import msgspec

from tests.fakes import KEY, MODEL, POOL
from twinfer.core.capabilities import Role, WorkerIdentity
from twinfer.core.clock import MonotonicClock
from twinfer.core.config import HandoffConfig, LinkConfig, PoolConfig
from twinfer.core.ids import RequestId, WorkerId, new_epoch
from twinfer.core.load import LoadReport
from twinfer.core.messages import Frame, Load, ToGateway, ToWorker
from twinfer.core.step import StepPlan, StepResult
from twinfer.engine.assemble import assemble, emulated_capabilities
from twinfer.engine.emulated import EmulatedRunner
from twinfer.engine.paged import PagedEngine, Runner
from twinfer.kv.memory import PoolMemory
from twinfer.rpc.client import connect
from twinfer.rpc.server import ControlServer
from twinfer.tls.credentials import Credentials
from twinfer.transport.tcp import TcpSource
from twinfer.worker.context import WorkerContext
from twinfer.worker.engine_thread import EngineThread
from twinfer.worker.reclaimer import Reclaimer
from twinfer.worker.service import WorkerService
from twinfer.worker.sink_link import SinkLinks
from twinfer.worker.transports import make_sinks, start_sources

HANDOFF = HandoffConfig(lease_s=10.0, heartbeat_s=0.2, chunk_kib=1)
"""A lease that ends in no test that is not about its end, however long the machine does something else."""
SMALL = msgspec.structs.replace(POOL, max_step_tokens=8)
"""Blocks of 4 tokens and 256 bytes: a step computes two of them, and four make a chunk."""
LINK = LinkConfig(transport="shm")
WAIT_S = 20.0
POLL_S = 0.01
T = TypeVar("T")
Message = TypeVar("Message", bound=ToGateway)


async def eventually(look: Callable[[], T | None], what: str) -> T:
    """What ``look`` returns as soon as that is something; fails past the deadline."""
    deadline = time.monotonic() + WAIT_S
    while (found := look()) is None:
        assert time.monotonic() < deadline, f"not within {WAIT_S:g} s: {what}"
        await asyncio.sleep(POLL_S)
    return found


class GatedRunner:
    """A device whose steps take as long as a test likes."""

    def __init__(self, runner: Runner) -> None:
        self._runner = runner
        self.inside = threading.Event()
        """A step is being computed, or was."""
        self.gate = threading.Event()
        self.gate.set()

    def execute(self, plan: StepPlan) -> StepResult:
        """Wait at the gate, then compute."""
        self.inside.set()
        assert self.gate.wait(WAIT_S), "the gate was never opened"
        return self._runner.execute(plan)

    def to_host(self, blocks: Sequence[int]) -> None:
        """As the device does."""
        self._runner.to_host(blocks)

    def from_host(self, blocks: Sequence[int]) -> None:
        """As the device does."""
        self._runner.from_host(blocks)


@dataclass
class Small:
    """An engine, its memory and its device."""

    engine: PagedEngine
    memory: PoolMemory
    runner: GatedRunner


def small_engine(pool: PoolConfig, num_blocks: int) -> Small:
    """An emulated engine of so many blocks."""
    found = emulated_capabilities(MODEL, pool)
    context = num_blocks * pool.block_tokens
    capabilities = msgspec.structs.replace(found, num_blocks=num_blocks, max_context_tokens=context)
    memory = PoolMemory(num_blocks, found.layout.block_bytes)
    clock = MonotonicClock()
    runner = GatedRunner(EmulatedRunner(memory.view, found.layout, found.vocab_size, pool.emulation, clock))
    return Small(assemble(pool, capabilities, runner, KEY, clock), memory, runner)


@dataclass
class Station:
    """A running worker."""

    identity: WorkerIdentity
    service: WorkerService
    runner: GatedRunner

    @property
    def load(self) -> LoadReport:
        """Its state of now."""
        return self.service.load()

    async def until(self, condition: Callable[[LoadReport], bool]) -> LoadReport:
        """Its first state of which the condition holds."""
        return await eventually(
            lambda: load if condition(load := self.load) else None,
            f"a state of {self.identity.worker}, now {self.load}",
        )

    async def at_rest(self) -> LoadReport:
        """Its state once it holds nothing for anybody."""
        return await self.until(is_at_rest)


def is_at_rest(load: LoadReport) -> bool:
    """Whether every block is free or cached, and nothing is open, running or waiting."""
    blocks = load.blocks
    busy = blocks.promised or load.handoffs or load.running or load.waiting
    return blocks.free + blocks.cached == blocks.total and not busy and load.healthy


@contextlib.asynccontextmanager
async def station(
    name: str,
    role: Role,
    num_blocks: int = 64,
    pool: PoolConfig = SMALL,
    handoff: HandoffConfig = HANDOFF,
    credentials: Credentials | None = None,
) -> AsyncIterator[Station]:
    """A worker from start to end, put together as ``worker/process.py`` does it."""
    async with contextlib.AsyncExitStack() as stack:
        small = small_engine(pool, num_blocks)
        stack.callback(small.memory.close)
        sources = start_sources(LINK, small.memory, "", TcpSource())
        stack.callback(sources.close)
        sinks = make_sinks(LINK)
        stack.callback(sinks.close)
        transfers = ThreadPoolExecutor(1)
        stack.callback(transfers.shutdown, cancel_futures=True)
        loop = asyncio.get_running_loop()
        thread = EngineThread(small.engine, loop)
        door = Hatch()
        server = ControlServer(door, KEY, "127.0.0.1:0", credentials=credentials)
        identity = WorkerIdentity(
            WorkerId(name), new_epoch(), role, small.engine.capabilities, await server.start(), sources.endpoints
        )
        stack.push_async_callback(server.stop, 0.2)
        context = WorkerContext(
            identity,
            KEY,
            small.engine,
            small.memory,
            MonotonicClock(),
            handoff,
            pool.accept,
            transfer=lambda rank, call, *args: transfers.submit(call, *args) and None,
            soon=lambda call, *args: loop.call_soon_threadsafe(call, *args) and None,
            wake=thread.wake,
            refused=(server.refused,),
        )
        service = door.service = WorkerService(context, sources, sinks, max_pulls=2)
        links = SinkLinks(
            lambda address: connect(address, KEY, credentials=credentials), context, service.reception.source
        )
        stack.push_async_callback(links.close)
        reclaimer = Reclaimer(service.reception.tick)
        stack.callback(reclaimer.stop)
        service.begin(links, (thread, reclaimer))
        reclaimer.start()
        thread.start(service.deliver, lambda error: None)
        stack.callback(thread.stop)
        stack.callback(small.runner.gate.set)
        yield Station(identity, service, small.runner)


class Hatch:
    """Passes callers on to the service, which comes into being after the server whose address it carries."""

    service: WorkerService

    async def on_gateway(self, stream):
        """Serve one gateway."""
        await self.service.on_gateway(stream)

    async def on_handoff(self, stream):
        """Serve one source."""
        await self.service.on_handoff(stream)

    async def report(self) -> LoadReport:
        """The state of now."""
        return await self.service.report()


class Caller:
    """A gateway's stream to one worker, and all that came over it, load reports excepted."""

    def __init__(self, address: str) -> None:
        self._client = connect(address, KEY)
        self._stream = self._client.gateway_stream()
        self.heard: list[ToGateway] = []
        self._task = asyncio.create_task(self._listen())

    def send(self, *messages: ToWorker) -> None:
        """Ask."""
        for message in messages:
            self._stream.send_soon(message)

    def all(self, kind: type[Message]) -> list[Message]:
        """Messages of one type so far."""
        return [message for message in self.heard if isinstance(message, kind)]

    async def hear(self, kind: type[Message], count: int = 1) -> list[Message]:
        """Messages of one type, as soon as there are so many."""
        return await eventually(
            lambda: found if len(found := self.all(kind)) >= count else None, f"{count} {kind}: {self.heard}"
        )

    def tokens(self, request_id: str) -> list[tuple[int, int]]:
        """Index and id of each token of a request, in the order in which they came."""
        frames = self.all(Frame)
        return [(t.index, t.token_id) for frame in frames for t in frame.tokens if t.request_id == request_id]

    async def done(self, request_id: str) -> None:
        """Return when the worker says that it is done with a request."""
        wanted = RequestId(request_id)
        await eventually(
            lambda: any(wanted == d.request_id for f in self.all(Frame) for d in f.done) or None, f"{request_id} done"
        )

    async def close(self) -> None:
        """Hang up."""
        await self._client.close()
        await self._task

    async def _listen(self) -> None:
        async for message in self._stream:
            if not isinstance(message, Load):
                self.heard.append(message)


@contextlib.asynccontextmanager
async def calling(*stations: Station) -> AsyncIterator[list[Caller]]:
    """A gateway with a stream to each of these."""
    callers = [Caller(each.identity.control) for each in stations]
    try:
        yield callers
    finally:
        for caller in callers:
            await caller.close()
