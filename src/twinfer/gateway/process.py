"""A gateway process, from start to end: connect to the workers, load the tokenizers, serve, drain."""

import asyncio
import contextlib
import logging
import os
import socket
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from twinfer.cluster.deployment import remove_traces
from twinfer.cluster.lifeline import cluster_key, notify, read_spec, stop_on_signals
from twinfer.cluster.registry import check_registry, read_registry
from twinfer.core.clock import MonotonicClock
from twinfer.core.config import Config
from twinfer.core.errors import TwinferError
from twinfer.core.ids import ModelId, WorkerId
from twinfer.core.process import READY, GatewaySpec, Notice
from twinfer.gateway.dispatch import FleetDispatcher
from twinfer.gateway.elastic import Pause, keep_in_shape
from twinfer.gateway.fleet import Fleet
from twinfer.gateway.front import front_of
from twinfer.gateway.joining import Comings, tell_reach
from twinfer.gateway.key_watch import watched_door
from twinfer.gateway.loading import Limits, load_model
from twinfer.gateway.models import ModelRegistry
from twinfer.gateway.office import open_office
from twinfer.gateway.serve import build_app, is_loopback, serve
from twinfer.router.prefix_index import PrefixIndex
from twinfer.rpc.client import connect
from twinfer.tls.credentials import load_credentials
from twinfer.tls.renewal import renewed
from twinfer.tls.roles import PeerRole

EXIT_CONFIG = 2
READY_POLL_S = 0.02
FIRST_LOOK_S = 2.0


def run_gateway() -> int:
    """Run until told to stop; returns the exit code."""
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="gateway: %(message)s")
    try:
        return asyncio.run(_serve(read_spec(GatewaySpec), cluster_key()))
    except TwinferError as error:
        notify(Notice(error=str(error)))
        return EXIT_CONFIG


async def _serve(spec: GatewaySpec, key: bytes) -> int:
    stop, launcher = asyncio.Event(), os.getppid()
    stop_on_signals(stop, watch_stdin=True)
    credentials = load_credentials(spec.config.tls, PeerRole.GATEWAY)
    workers = _workers(spec)
    fleet = Fleet(
        workers,
        lambda address: connect(address, key, credentials=credentials),
        spec.config.handoff.lease_s,
        index=PrefixIndex(key),
    )
    try:
        notify(Notice("loading tokenizers"))
        models = ModelRegistry(
            [
                load_model(model, Path(spec.directories[ModelId(model.id)]), _limits(spec.config, model.id))
                for model in spec.config.model
            ]
        )
        dispatcher = FleetDispatcher(fleet, spec.config)
        sock, front = socket.socket(fileno=spec.socket_fd), front_of(spec.config.gateway)
        async with (
            watched_door(spec.config, shut=not is_loopback(sock)) as door,
            open_office(spec.config) as office,
            renewed(credentials, spec.config.tls.files),
            renewed(front.endpoint, front.endpoint.files if front.endpoint else ()),
        ):
            app = build_app(spec.config, models, dispatcher, door, office)
            beside = [
                asyncio.create_task(_announce(fleet)),
                asyncio.create_task(tell_reach(fleet, lambda names: notify(Notice(reaches=names)), READY_POLL_S)),
                asyncio.create_task(_keep_in_shape(fleet, spec)),
                *(asyncio.create_task(comings.follow()) for comings in _comings(fleet, spec, workers)),
            ]
            await _look_around(fleet, stop)
            await serve(app, sock, stop, front=front)
        for task in beside:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
    finally:
        await fleet.close()
        if spec.record:
            Path(spec.record).unlink(missing_ok=True)
            if os.getppid() != launcher:
                remove_traces(Path(spec.record))
    return 0


async def _keep_in_shape(fleet: Fleet, spec: GatewaySpec) -> None:
    """Change roles, if that is wanted, and this gateway's to do."""
    if spec.leads and spec.config.elastic.enabled:
        models = tuple(ModelId(model.id) for model in spec.config.model)
        pause = Pause(Path(spec.roster) if spec.roster else None, lambda told: notify(Notice(standstill=told)))
        config = spec.config
        await keep_in_shape(fleet, models, config.elastic, config.routing, MonotonicClock(), pause)


def _workers(spec: GatewaySpec) -> dict[WorkerId, str]:
    """Addresses of those that there are by now, in the order of the configuration as far as it has them."""
    if not spec.roster:
        return spec.workers
    there = read_registry(Path(spec.roster), encrypted=spec.config.tls.enabled)
    return {worker: there[worker] for worker in spec.workers if worker in there} | there


def _comings(fleet: Fleet, spec: GatewaySpec, workers: Mapping[WorkerId, str]) -> Iterator[Comings]:
    """Where workers come from: the launcher, and people who start them by hand."""
    encrypted = spec.config.tls.enabled
    if spec.roster:
        yield Comings(fleet, Path(spec.roster), encrypted=encrypted, joined=workers)
    if directory := spec.config.registry:
        yield Comings(fleet, check_registry(directory), encrypted=encrypted, others=lambda: _workers(spec))


async def _look_around(fleet: Fleet, stop: asyncio.Event) -> None:
    """Give workers that are up a moment to say so: better to be accepted late than to hear that nobody is there."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(FIRST_LOOK_S):
            while fleet.missing() and not stop.is_set():
                await asyncio.sleep(READY_POLL_S)


async def _announce(fleet: Fleet) -> None:
    """Say ``ready`` once every worker of the configuration is there."""
    said: Sequence[WorkerId] = ()
    while missing := fleet.missing():
        if missing != said:
            notify(Notice(f"waiting for {', '.join(missing)}"))
            said = missing
        await asyncio.sleep(READY_POLL_S)
    notify(Notice(READY))


def _limits(config: Config, model_id: str) -> Limits | None:
    """What an emulated engine allows; a native one's limits are its checkpoint's."""
    for pool in config.pool:
        if pool.engine == "emulated" and pool.model in ("", model_id):
            return Limits(pool.emulation.max_context_tokens, pool.emulation.vocab_size)
    return None
