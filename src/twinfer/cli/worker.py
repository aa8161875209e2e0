"""``twinfer worker``: one worker of a configured pool, in the foreground."""

import argparse
import os

from twinfer.cli.configuration import cache_dir, load_config
from twinfer.cli.emulation import locate_models, settle_emulation
from twinfer.cluster.lifeline import cluster_key
from twinfer.cluster.plan import model_of
from twinfer.cluster.registry import check_registry
from twinfer.core.address import check_address, reachable
from twinfer.core.errors import ConfigError
from twinfer.core.ids import WorkerId
from twinfer.core.process import WorkerSpec


def run(arguments: argparse.Namespace) -> int:
    """Serve until a signal comes."""
    config = load_config(arguments)
    config = settle_emulation(config, locate_models(config))
    pool = next((pool for pool in config.pool if pool.name == arguments.pool), None)
    if pool is None:
        known = ", ".join(pool.name for pool in config.pool)
        raise ConfigError(f"there is no pool {arguments.pool!r}; known are {known}")
    if config.registry:
        check_registry(config.registry)
    check_address(arguments.listen, encrypted=config.tls.enabled)
    reachable(arguments.listen, arguments.advertise)
    spec = WorkerSpec(
        worker=WorkerId(f"{pool.name}-{arguments.index}"),
        model=model_of(config, pool),
        pool=pool,
        link=config.link,
        handoff=config.handoff,
        listen=arguments.listen,
        cores=pool.cores or tuple(sorted(os.sched_getaffinity(0))),
        cache_dir=cache_dir(config),
        tls=config.tls,
        advertise=arguments.advertise,
        kv_port=arguments.kv_port,
        registry=config.registry,
    )
    key = cluster_key()
    from twinfer.worker.process import run_worker

    return run_worker(spec, key, watch_stdin=False)
