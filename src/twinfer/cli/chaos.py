"""``twinfer chaos``: puts a running deployment on this machine to the test."""

import argparse
import asyncio
import ipaddress
import math
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec
from rich.console import Console

from twinfer.chaos.plan import PARTITIONS, Kind, make_plan
from twinfer.chaos.processes import Processes
from twinfer.chaos.prompts import make_questions
from twinfer.chaos.report import Report
from twinfer.chaos.run import ChaosRun, Settings
from twinfer.chaos.show import Show
from twinfer.chaos.watch import Watch
from twinfer.cli.configuration import load_config
from twinfer.cluster.deployment import DeploymentRecord, WorkerRecord, find_record, read_record
from twinfer.core.config import Config
from twinfer.core.errors import ConfigError

EXIT_NOT_CLEAN = 1
EXIT_INTERRUPTED = 130
PATIENCE_S = 60.0
"""Silence that is tolerated beside the leases that may have to end first, one for each attempt."""


def run(arguments: argparse.Namespace) -> int:
    """Disturb, judge, and tell; 0 when nothing went wrong."""
    for name in ("events", "clients", "prompts"):
        if getattr(arguments, name) < 1:
            raise ConfigError(f"--{name} is {getattr(arguments, name)}; it must be at least 1")
    if arguments.json is not None:
        write_json(arguments.json, {})  # what cannot be written should show now, not in an hour
    path = find_record(local_port(arguments.url))
    record = read_record(path)
    if arguments.config is not None or arguments.set:
        record = as_configured(record, load_config(arguments))
    processes, lease_s = Processes(path, record), record.handoff.lease_s
    partitions = record.handoff.allow_isolation
    kinds = chosen_kinds(arguments.only, partitions=partitions)
    plan = make_plan(processes.targets, lease_s, arguments.events, arguments.seed, kinds)
    report = Report(plan, make_questions(arguments.prompts, arguments.seed), strict=arguments.strict)
    settings = Settings(
        model=record.models[0],
        lease_s=lease_s,
        patience_s=PATIENCE_S + lease_s * (record.handoff.max_attempts + 1),
        num_clients=arguments.clients,
        seed=arguments.seed,
        max_s=math.inf if arguments.minutes is None else arguments.minutes * 60,
    )
    console = Console(highlight=False)
    if not partitions and not arguments.only:
        console.print("No partitions: for these, start it with --set handoff.allow_isolation=true", style="yellow")
    show = Show(console, len(plan))
    asyncio.run(_run(processes, settings, report, show))
    show.result(report)
    if arguments.json is not None:
        write_json(arguments.json, report.as_json())
    if report.interrupted and not report.faulty:
        return EXIT_INTERRUPTED
    return 0 if report.clean else EXIT_NOT_CLEAN


def write_json(path: str, result: dict[str, Any]) -> None:
    """Write the result, indented.

    Raises:
        ConfigError: there is no writing there.
    """
    try:
        Path(path).write_bytes(msgspec.json.format(msgspec.json.encode(result)))
    except OSError as error:
        raise ConfigError(f"cannot write to {path!r}: {error.strerror}; choose another --json") from error


def chosen_kinds(names: Sequence[str], *, partitions: bool) -> frozenset[Kind]:
    """The kinds of disturbance with these names, all where there are none; a partition only where it is allowed.

    Raises:
        ConfigError: one of them does not exist, or a partition was chosen and is not allowed.
    """
    known = {kind.replace(" ", "-"): kind for kind in Kind}
    for name in names:
        if name not in known:
            raise ConfigError(f"--only {name!r} is no kind of disturbance; known: {', '.join(known)}")
        if known[name] in PARTITIONS and not partitions:
            raise ConfigError(f"--only {name} needs a deployment started with --set handoff.allow_isolation=true")
    chosen = {known[name] for name in names} or set(Kind)
    return frozenset(chosen if partitions else chosen - set(PARTITIONS))


def local_port(url: str) -> int:
    """The port of a URL of this machine.

    Raises:
        ConfigError: it is none, or of another machine.
    """
    try:
        parts = urlsplit(url)
        port = parts.port or 80
    except ValueError as error:
        raise ConfigError(f"{url!r} is no URL: {error}") from error
    if parts.scheme != "http" or not parts.hostname:
        raise ConfigError(f"{url!r} is no address of a deployment: write it like http://127.0.0.1:8000")
    try:
        local = ipaddress.ip_address(parts.hostname).is_loopback
    except ValueError:
        local = parts.hostname == "localhost"
    if not local:
        raise ConfigError(f"{parts.hostname} is not this machine: run chaos where 'twinfer serve' runs")
    return port


def as_configured(record: DeploymentRecord, config: Config) -> DeploymentRecord:
    """The deployment with the lease and the roles that a configuration gives it.

    Raises:
        ConfigError: it was not started with this configuration.
    """
    roles = {pool.name: pool.role.value for pool in config.pool}
    unknown = sorted(worker for worker in record.workers if worker.rpartition("-")[0] not in roles)
    if unknown:
        raise ConfigError(f"the configuration has no pool of {', '.join(unknown)}; give the one it was started with")
    workers = {
        worker: WorkerRecord(roles[worker.rpartition("-")[0]], its.address) for worker, its in record.workers.items()
    }
    handoff = msgspec.structs.replace(record.handoff, lease_s=config.handoff.lease_s)
    return msgspec.structs.replace(record, workers=workers, handoff=handoff)


async def _run(processes: Processes, settings: Settings, report: Report, show: Show) -> None:
    """Until it is over, or somebody says so; whatever was stopped goes on afterwards."""
    watch = Watch(processes.record.url)
    try:
        if unready := await watch.unready():
            raise ConfigError(f"{processes.record.url} is not ready: {unready}")
        with show.progress:
            work = asyncio.create_task(ChaosRun(processes, watch, settings, report, show).run())
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                asyncio.get_running_loop().add_signal_handler(number, work.cancel)
            try:
                await work
            except asyncio.CancelledError:
                report.interrupted = True
    finally:
        processes.resume()
        await watch.close()
