"""A worker process, from start to end.

1. Pin to its cores, build the engine, start the transports and the control plane; say ``ready`` on standard output.
2. Serve until a signal comes, standard input ends (the launcher is gone), or the engine's thread dies.
3. Let what is under way finish for ``handoff.drain_s``; gateways carry on elsewhere with what is left. Told to leave on
   standard input, it may take as long as that says, or until one of the above.
4. Stop in the order in which things depend on each other: control plane, reclaimer, engine, transports, memory.
"""

import asyncio
import contextlib
import logging
import os
import sys
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path

from twinfer.cluster.lifeline import notify, stop_on_signals
from twinfer.cluster.registry import announced
from twinfer.core.address import reachable
from twinfer.core.capabilities import WorkerIdentity
from twinfer.core.clock import MonotonicClock
from twinfer.core.errors import TwinferError
from twinfer.core.ids import new_epoch
from twinfer.core.process import READY, Notice, WorkerSpec
from twinfer.rpc.client import connect
from twinfer.rpc.server import ControlServer
from twinfer.tls.credentials import load_credentials
from twinfer.tls.renewal import renewed
from twinfer.tls.roles import PeerRole
from twinfer.worker.build import build_engine
from twinfer.worker.context import WorkerContext
from twinfer.worker.door import Door
from twinfer.worker.engine_thread import EngineThread
from twinfer.worker.pace import link_pace
from twinfer.worker.reclaimer import Reclaimer
from twinfer.worker.service import WorkerService
from twinfer.worker.sink_link import SinkLinks
from twinfer.worker.transfers import Transfers
from twinfer.worker.transports import make_sinks, nixl_fabric, start_sources, tcp_source
from twinfer.worker.turning import Turning

logger = logging.getLogger(__name__)
EXIT_CONFIG = 2
EXIT_CRASHED = 70
GRACE_S = 0.5


def run_worker(spec: WorkerSpec, key: bytes, *, watch_stdin: bool) -> int:
    """Run until told to stop; returns the exit code."""
    if spec.cores:
        os.sched_setaffinity(0, spec.cores)
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format=f"{spec.worker}: %(message)s")
    try:
        return asyncio.run(_serve(spec, key, watch_stdin=watch_stdin))
    except TwinferError as error:
        notify(Notice(error=str(error)))
        logger.error("%s", error)
        return EXIT_CONFIG


async def _serve(spec: WorkerSpec, key: bytes, *, watch_stdin: bool) -> int:
    stop, told_to_leave, crashes = asyncio.Event(), asyncio.Queue[float](), list[BaseException]()
    stop_on_signals(stop, watch_stdin=watch_stdin, leave=told_to_leave.put_nowait)
    loop, clock = asyncio.get_running_loop(), MonotonicClock()
    async with AsyncExitStack() as stack:
        # In a thread, so that a signal during a long load is heard.
        engine, memory = await asyncio.to_thread(build_engine, spec, key, clock, lambda stage: notify(Notice(stage)))
        stack.callback(memory.close)
        credentials = load_credentials(spec.tls, PeerRole.WORKER, spec.worker)
        await stack.enter_async_context(renewed(credentials, spec.tls.files))
        tcp = tcp_source(spec, credentials)
        sources = start_sources(spec.link, memory, spec.socket_dir, tcp, nixl_fabric(spec))
        stack.callback(sources.close)
        pace = link_pace(spec.link, engine.capabilities.layout, Path(spec.cache_dir))
        sinks = make_sinks(spec.link, credentials, nixl_fabric(spec), pace)
        stack.callback(sinks.close)
        transfers = Transfers()
        stack.callback(transfers.close)
        engine_thread = EngineThread(engine, loop)
        door = Door()
        server = ControlServer(door, key, spec.listen, credentials=credentials)
        address = reachable(await server.start(), spec.advertise)
        stack.push_async_callback(server.stop, GRACE_S)
        identity = WorkerIdentity(
            spec.worker, new_epoch(), spec.pool.role, engine.capabilities, address, sources.endpoints
        )
        context = WorkerContext(
            identity,
            key,
            engine,
            memory,
            clock,
            spec.handoff,
            spec.pool.accept,
            transfer=transfers,
            soon=lambda call, *args: _soon(loop, call, *args),
            wake=engine_thread.wake,
            refused=(server.refused, tcp.refused),
        )
        service = WorkerService(context, sources, sinks, _max_pulls(spec))
        links = SinkLinks(lambda sink: connect(sink, key, credentials=credentials), context, service.reception.source)
        stack.push_async_callback(links.close)
        reclaimer = Reclaimer(service.reception.tick)
        stack.callback(reclaimer.stop)
        service.begin(links, (engine_thread, reclaimer))
        reclaimer.start()

        def crashed(error: BaseException) -> None:
            crashes.append(error)
            stop.set()

        engine_thread.start(service.deliver, crashed)
        stack.callback(engine_thread.stop)
        door.open(service)
        notify(Notice(READY, address=address))
        with announced(Path(spec.registry), spec.worker, address) if spec.registry else contextlib.nullcontext():
            await _until_done(stop, told_to_leave, service.turning)
        if not crashes:
            await service.turning.leave()
    return EXIT_CRASHED if crashes else 0


async def _until_done(stop: asyncio.Event, told_to_leave: asyncio.Queue[float], turning: Turning) -> None:
    """Return when the worker has to stop, or has left at leisure."""
    stopped = asyncio.create_task(stop.wait())
    leaving = asyncio.create_task(_leave(told_to_leave, turning))
    await asyncio.wait({stopped, leaving}, return_when=asyncio.FIRST_COMPLETED)
    for task in (stopped, leaving):
        task.cancel()
    await asyncio.gather(stopped, leaving, return_exceptions=True)


async def _leave(told_to_leave: asyncio.Queue[float], turning: Turning) -> None:
    await turning.leave(await told_to_leave.get())


def _soon(loop: asyncio.AbstractEventLoop, call: Callable[..., None], *args: object) -> None:
    """On the event loop; once that has closed there is nobody left to tell."""
    if not loop.is_closed():
        loop.call_soon_threadsafe(call, *args)


def _max_pulls(spec: WorkerSpec) -> int:
    """Chunks of one handoff in flight at once."""
    return max(1, spec.link.max_in_flight_mib * 1024 // max(1, spec.handoff.chunk_kib))
