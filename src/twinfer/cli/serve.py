"""``twinfer serve``: a whole deployment on this machine, kept running until Ctrl-C."""

import argparse
import asyncio
import os
import secrets
import signal
import socket
import sys
import time
from pathlib import Path

import msgspec

from twinfer.cli.banner import Banner
from twinfer.cli.configuration import cache_dir, load_config
from twinfer.cli.emulation import emulated_devices, locate_models, settle_emulation
from twinfer.cluster.child import Command
from twinfer.cluster.deployment import RECORD, DeploymentRecord, WorkerRecord, private_directory, write_record
from twinfer.cluster.plan import LocalPlan, plan_local
from twinfer.cluster.registry import check_registry
from twinfer.cluster.supervisor import Supervisor
from twinfer.core.config import Config
from twinfer.core.config_text import dump_config
from twinfer.core.ids import ModelId
from twinfer.core.process import GatewaySpec
from twinfer.identity.place import DATABASE_KEY_VARIABLE, DATABASE_URL_VARIABLE, place_of

GATEWAY_PATIENCE_S = 35.0
"""Longer than a gateway lets running calls finish, so that it can still tell those it cuts off."""
WORKER_PATIENCE_S = 10.0
GATEWAY = "gateway"
_FOR_GATEWAYS = (DATABASE_URL_VARIABLE, DATABASE_KEY_VARIABLE)
"""Variables that no worker gets to see."""


def run(arguments: argparse.Namespace) -> int:
    """Serve until a signal comes."""
    started = time.monotonic()
    config = load_config(arguments)
    notes = list(emulated_devices(config, Path(cache_dir(config))))
    from twinfer.gateway.front import front_of
    from twinfer.gateway.serve import bind

    front_of(config.gateway)
    if config.registry:
        check_registry(config.registry)
    guarded = has_keys(config)
    if guarded:  # whatever becomes of the database, a gateway that is started again asks, too
        config = msgspec.structs.replace(config, identity=msgspec.structs.replace(config.identity, required=True))
    sock = bind(config.gateway.host, config.gateway.port, guarded=guarded)
    with sock, private_directory(sock.getsockname()[1]) as run_dir:
        directories = locate_models(config)
        config = settle_emulation(config, directories)
        plan = plan_local(config, sorted(os.sched_getaffinity(0)), str(run_dir), cache_dir(config))
        for note in notes:
            print(note, file=sys.stderr)
        return asyncio.run(_serve(config, plan, directories, sock, run_dir / RECORD, started))


async def _serve(
    config: Config,
    plan: LocalPlan,
    directories: dict[ModelId, str],
    sock: socket.socket,
    record_path: Path,
    started: float,
) -> int:
    stop = asyncio.Event()

    def stop_or_kill() -> None:
        """The first signal lets running requests finish; the second does not wait."""
        if stop.is_set():
            supervisor.kill()
        stop.set()

    host, port = sock.getsockname()[:2]
    banner = Banner(config, plan, host, port)
    banner.configuration(dump_config(without_passwords(config)))
    key = _cluster_key()
    record = _record(config, plan, banner.url, key)

    def update_record(_: str) -> None:
        write_record(record_path, msgspec.structs.replace(record, pids=supervisor.pids))

    supervisor = Supervisor(key, banner, update_record)
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop_or_kill)
    first = GatewaySpec(config, plan.addresses, directories, sock.fileno(), str(record_path))
    gateways = [_gateway(first, index) for index in range(config.gateway.count)]
    workers = [
        Command(spec.worker, "twinfer.worker", msgspec.json.encode(spec), withheld=_FOR_GATEWAYS)
        for spec in plan.workers
    ]
    starting = asyncio.create_task(supervisor.start([*workers, *gateways]))
    stopping = asyncio.create_task(stop.wait())
    try:
        with banner.progress():
            await asyncio.wait({starting, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if starting.done():
            starting.result()
            banner.ready(time.monotonic() - started)
            await stopping
        banner.stopping()
        return 0
    finally:
        starting.cancel()
        stopping.cancel()
        await asyncio.gather(starting, stopping, return_exceptions=True)
        await supervisor.stop([command.name for command in gateways], GATEWAY_PATIENCE_S)
        await supervisor.stop([spec.worker for spec in plan.workers], WORKER_PATIENCE_S)


def _gateway(first: GatewaySpec, index: int) -> Command:
    """One of the gateways: all listen on one socket; the first removes the record at its end, and changes roles."""
    spec = first if index == 0 else msgspec.structs.replace(first, record="", leads=False)
    name = f"{GATEWAY}-{index}" if index else GATEWAY
    return Command(name, "twinfer.gateway", msgspec.json.encode(spec), (spec.socket_fd,))


def has_keys(config: Config) -> bool:
    """Whether a key was ever made, and everybody therefore needs one.

    Raises:
        ConfigError: the keys' database cannot be used.
    """
    place = place_of(config.identity)
    if place.file is not None and not place.file.exists():
        return False
    from twinfer.identity.store import KeyStore

    state = KeyStore(place).read()
    return state is not None and state.any_ever


def without_passwords(config: Config) -> Config:
    """The configuration as it may be shown."""
    if not config.identity.database:
        return config
    from twinfer.identity.database import shown_url

    identity = msgspec.structs.replace(config.identity, database=shown_url(config.identity.database))
    return msgspec.structs.replace(config, identity=identity)


def _record(config: Config, plan: LocalPlan, url: str, key: bytes) -> DeploymentRecord:
    """What other commands on this machine need to know of the deployment; nothing is started yet."""
    roles = {pool.name: pool.role.value for pool in config.pool}
    workers = {
        worker: WorkerRecord(roles[worker.rpartition("-")[0]], address) for worker, address in plan.addresses.items()
    }
    models = tuple(ModelId(model.id) for model in config.model)
    return DeploymentRecord(url, os.getpid(), {}, workers, models, config.handoff, key.hex())


def _cluster_key() -> bytes:
    """The operator's key, when workers were started by hand with it; else one that lives as long as this process."""
    from twinfer.cluster.lifeline import cluster_key
    from twinfer.core.process import CLUSTER_KEY_VARIABLE

    return cluster_key() if CLUSTER_KEY_VARIABLE in os.environ else secrets.token_bytes(32)
