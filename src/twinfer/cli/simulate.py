"""``twinfer simulate``: a trace replayed against devices that are not here, under a virtual clock."""

import argparse
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from twinfer.cli.configuration import cache_dir, load_config
from twinfer.cli.emulation import simulated_pair
from twinfer.core.config import Config, PoolConfig
from twinfer.core.errors import ConfigError
from twinfer.core.traces import faster, read_trace
from twinfer.simulator.failures import parse_failure
from twinfer.simulator.hardware import hardware
from twinfer.simulator.run import simulate
from twinfer.simulator.scenario import Overheads, Scenario
from twinfer.simulator.summary import Slo, summarise

TABLE_WIDTH = 112
"""Narrower terminals wrap, for a table cut short would not be worth printing."""


def run(arguments: argparse.Namespace) -> int:
    """Simulate, and say what came of it."""
    _check_numbers(arguments)
    path = Path(arguments.trace)
    trace = faster(read_trace(path, arguments.limit), arguments.rate_scale)
    scenario = _scenario(arguments)
    outputs = {name: Path(said) for name in ("json", "html") if (said := getattr(arguments, name))}
    for output in outputs.values():
        if not output.absolute().parent.is_dir():
            raise ConfigError(f"{output} cannot be written: there is no directory {output.absolute().parent}")
    with _progress(len(trace)) as progress:
        recorder = simulate(scenario, trace, progress)
    summary = summarise(path.name, scenario, recorder, Slo(arguments.slo_ttft, arguments.slo_tpot))
    if "json" in outputs:
        outputs["json"].write_bytes(msgspec.json.format(msgspec.json.encode(summary)) + b"\n")
    if "html" in outputs:
        from twinfer.simulator.html import page

        outputs["html"].write_text(page(summary), encoding="utf-8")
    from rich.console import Console

    from twinfer.simulator.report import report

    console = Console(highlight=False, soft_wrap=True)
    console.width = max(console.width, TABLE_WIDTH)
    console.print(report(summary), markup=False)
    return 0


def _scenario(arguments: argparse.Namespace) -> Scenario:
    if not (arguments.config or arguments.prefill or arguments.decode or arguments.model_shape):
        raise ConfigError("nothing says what to simulate; give --prefill and --decode, or --config")
    config = _with_workers(load_config(arguments, simulated_pair), arguments)
    if len(config.model) != 1:
        raise ConfigError(f"a simulation takes one model; leave one of the {len(config.model)} [[model]] tables")
    links = {pool.name: name for pool in config.pool if (name := _link(arguments, pool))}
    directory = Path(cache_dir(config))
    return Scenario(
        config,
        {pool.name: hardware(config.model[0], pool, directory, links, config.link.emulation) for pool in config.pool},
        Overheads(arguments.message_us * 1e-6, arguments.step_us * 1e-6, arguments.gateway_us * 1e-6),
        tuple(parse_failure(text) for text in arguments.fail),
        arguments.seed,
    )


def _with_workers(config: Config, arguments: argparse.Namespace) -> Config:
    """As many workers of each role as the command line says."""
    pools = []
    for pool in config.pool:
        asked = arguments.decode_workers if pool.role.decodes else arguments.prefill_workers
        pools.append(pool if asked is None else msgspec.structs.replace(pool, workers=asked))
    return msgspec.structs.replace(config, pool=tuple(pools))


def _link(arguments: argparse.Namespace, pool: PoolConfig) -> str | None:
    found: str | None = arguments.decode_link if pool.role.decodes else arguments.prefill_link
    return found


def _check_numbers(arguments: argparse.Namespace) -> None:
    positive = ("rate_scale", "limit", "slo_ttft", "slo_tpot", "prefill_workers", "decode_workers")
    for name in positive:
        found = getattr(arguments, name)
        if found is not None and not found > 0:
            raise ConfigError(f"--{name.replace('_', '-')} is {found:g}; it has to be above 0")
    for name in ("message_us", "step_us", "gateway_us"):
        if getattr(arguments, name) < 0:
            raise ConfigError(f"--{name.replace('_', '-')} is {getattr(arguments, name):g}; it cannot be negative")


@contextmanager
def _progress(total: int) -> Iterator[Callable[[int], None] | None]:
    """A bar on a terminal that is moved now and then, nothing elsewhere."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import Progress

    every = max(1, total // 500)
    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("simulating", total=total)

        def arrived(number: int) -> None:
            if not number % every:
                progress.update(task, completed=number)

        yield arrived
