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
from twinfer.cli.checking import Served
from twinfer.cli.configuration import cache_dir, load_config
from twinfer.cli.emulation import emulated_devices, locate_models, settle_emulation
from twinfer.cli.rolls import Rolls
from twinfer.cluster.child import Command
from twinfer.cluster.crew import Crew
from twinfer.cluster.deployment import RECORD, ROSTER, DeploymentRecord, WorkerRecord, private_directory, write_record
from twinfer.cluster.orders import taking_orders
from twinfer.cluster.plan import LocalPlan, plan_local
from twinfer.cluster.registry import announce, check_registry
from twinfer.cluster.supervisor import Supervisor
from twinfer.core.config import Config
from twinfer.core.config_text import dump_config
from twinfer.core.ids import ModelId
from twinfer.core.process import GatewaySpec, WorkerSpec
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
        served = Served(settle_emulation(config, directories), directories)
        plan = plan_local(served.pinned().config, sorted(os.sched_getaffinity(0)), str(run_dir), cache_dir(config))
        for note in notes:
            print(note, file=sys.stderr)
        return asyncio.run(_serve(served, plan, sock, run_dir, started))


async def _serve(served: Served, plan: LocalPlan, sock: socket.socket, run_dir: Path, started: float) -> int:
    stop = asyncio.Event()

    def stop_or_kill() -> None:
        """The first signal lets running requests finish; the second does not wait."""
        if stop.is_set():
            deployment.supervisor.kill()
        stop.set()

    host, port = sock.getsockname()[:2]
    banner = Banner(served.config, plan, host, port)
    banner.configuration(dump_config(without_passwords(served.config)))
    deployment = _Deployment(served, plan, sock.fileno(), run_dir, banner)
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop_or_kill)
    starting = asyncio.create_task(deployment.start())
    stopping = asyncio.create_task(stop.wait())
    try:
        with banner.progress():
            await asyncio.wait({starting, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if starting.done():
            starting.result()
            banner.ready(time.monotonic() - started)
            rolls = Rolls(served, deployment.crew, run_dir, deployment.serve, banner.news)
            async with taking_orders(run_dir, rolls.carry_out):
                await stopping
        banner.stopping()
        return 0
    finally:
        starting.cancel()
        stopping.cancel()
        await asyncio.gather(starting, stopping, return_exceptions=True)
        await deployment.stop()


class _Deployment:
    """Gateways and workers of this machine, as other commands find them."""

    def __init__(self, served: Served, plan: LocalPlan, socket_fd: int, run_dir: Path, banner: Banner) -> None:
        key = _cluster_key()
        self._plan = plan
        self._socket_fd = socket_fd
        self._record_path = run_dir / RECORD
        self._record = _record(served.config, plan, banner.url, key)
        self._roster = run_dir / ROSTER
        self._roster.mkdir(mode=0o700)
        for worker, address in plan.addresses.items():
            announce(self._roster, worker, address)
        self.supervisor = Supervisor(key, banner, self._update_record)
        self._gateways = self._commands(served)
        names = [command.name for command in self._gateways]
        self.crew = Crew(self.supervisor, self._roster, names, _worker, plan.workers)

    async def start(self) -> None:
        """Return when all serve."""
        await self.supervisor.start([*map(_worker, self._plan.workers), *self._gateways])

    def serve(self, served: Served) -> None:
        """From now on serve this: gateways that are started again begin with it."""
        for command in self._commands(served):
            self.supervisor.amend(command)

    async def stop(self) -> None:
        """Gateways drain first, workers after."""
        gateways = [command.name for command in self._gateways]
        await self.supervisor.stop(gateways, GATEWAY_PATIENCE_S)
        await self.supervisor.stop([name for name in self.supervisor.pids if name not in gateways], WORKER_PATIENCE_S)

    def _commands(self, served: Served) -> list[Command]:
        """The gateways: all listen on one socket; the first removes the record at its end, and changes roles."""
        first = GatewaySpec(
            served.config,
            self._plan.addresses,
            served.directories,
            self._socket_fd,
            record=str(self._record_path),
            roster=str(self._roster),
        )
        specs = [first, *[msgspec.structs.replace(first, record="", leads=False)] * (served.config.gateway.count - 1)]
        return [
            Command(
                f"{GATEWAY}-{index}" if index else GATEWAY,
                "twinfer.gateway",
                msgspec.json.encode(spec),
                (spec.socket_fd,),
            )
            for index, spec in enumerate(specs)
        ]

    def _update_record(self) -> None:
        here = {worker: WorkerRecord(spec.pool.role.value, spec.listen) for worker, spec in self.crew.specs.items()}
        began = {spec.worker for spec in self._plan.workers}
        away = {worker: its for worker, its in self._record.workers.items() if worker not in began}
        record = msgspec.structs.replace(self._record, pids=self.supervisor.pids, workers=away | here)
        write_record(self._record_path, record)


def _worker(spec: WorkerSpec) -> Command:
    return Command(spec.worker, "twinfer.worker", msgspec.json.encode(spec), withheld=_FOR_GATEWAYS)


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
