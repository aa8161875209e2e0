"""From a configuration and a machine's cores to the processes to start. Pure."""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from twinfer.core.address import check_address, is_unix, stays_here
from twinfer.core.config import Config, ModelConfig, PoolConfig
from twinfer.core.errors import ConfigError
from twinfer.core.ids import WorkerId
from twinfer.core.process import WorkerSpec


@dataclass(frozen=True, slots=True)
class LocalPlan:
    """Processes of one machine.

    Attributes:
        workers: to be started here.
        addresses: of all workers, those started elsewhere included, by name.
    """

    workers: tuple[WorkerSpec, ...]
    addresses: dict[WorkerId, str]


def plan_local(config: Config, cores: Sequence[int], run_dir: str, cache_dir: str) -> LocalPlan:
    """Name, place and address every worker.

    Pools without cores of their own share what the others leave, evenly over their workers; with fewer cores than
    workers some share one. Emulated workers compute nothing and have all of it together.

    Args:
        config: checked by :func:`check`.
        cores: that this process may use.
        run_dir: private directory for sockets.
        cache_dir: for prepared weights.

    Raises:
        ConfigError: the topology makes no sense.
    """
    check(config, cores)
    taken = {core for pool in config.pool for core in pool.cores}
    shared = [core for core in cores if core not in taken] or list(cores)
    sharing = [pool for pool in config.pool if not pool.cores and not pool.addresses and pool.engine == "native"]
    shares = iter(_deal(shared, sum(pool.workers for pool in sharing)))
    workers: list[WorkerSpec] = []
    addresses: dict[WorkerId, str] = {}
    for pool in config.pool:
        own: Iterator[tuple[int, ...]] = iter(_deal(pool.cores, pool.workers)) if pool.cores else shares
        if not pool.cores and pool.engine == "emulated":
            own = itertools.repeat(tuple(shared))
        for index in range(len(pool.addresses) or pool.workers):
            worker = WorkerId(f"{pool.name}-{index}")
            if pool.addresses:
                addresses[worker] = pool.addresses[index]
                continue
            addresses[worker] = f"unix:{run_dir}/{worker}.sock"
            spec = WorkerSpec(
                worker=worker,
                model=model_of(config, pool),
                pool=pool,
                link=config.link,
                handoff=config.handoff,
                listen=addresses[worker],
                cores=next(own),
                cache_dir=cache_dir,
                socket_dir=run_dir,
            )
            workers.append(spec)
    return LocalPlan(tuple(workers), addresses)


def model_of(config: Config, pool: PoolConfig) -> ModelConfig:
    """The model that a pool serves."""
    return next((model for model in config.model if model.id == pool.model), config.model[0])


def check(config: Config, cores: Sequence[int]) -> None:
    """See that names are unique and references meet.

    Raises:
        ConfigError: which one does not.
    """
    if not config.model:
        raise ConfigError("the configuration has no [[model]]; add one, or leave them all out for the demo model")
    ids = [model.id for model in config.model]
    names = [pool.name for pool in config.pool]
    for kind, values in (("model id", ids), ("pool name", names)):
        twice = {value for value in values if values.count(value) > 1}
        if twice:
            raise ConfigError(f"{kind} {sorted(twice)[0]!r} is used twice; give each its own")
    for pool in config.pool:
        if pool.model and pool.model not in ids:
            raise ConfigError(f"pool {pool.name!r} serves {pool.model!r}, which is no [[model]] id; known: {ids}")
        missing = sorted(set(pool.cores) - set(cores))
        if missing:
            raise ConfigError(f"pool {pool.name!r} asks for cores {missing}, this machine offers {list(cores)}")
        for address in pool.addresses:
            check_address(address, encrypted=config.tls.enabled)
        if pool.workers < 1:
            raise ConfigError(f"pool {pool.name!r} has workers = {pool.workers}; set at least 1, or remove the pool")
    for model in config.model:
        if not any(pool.role.decodes for pool in config.pool if model_of(config, pool).id == model.id):
            raise ConfigError(f"no pool with role decode or both serves {model.id!r}; add a [[pool]]")
        _check_neighbours([pool for pool in config.pool if model_of(config, pool).id == model.id], config.tls.enabled)


def _check_neighbours(pools: Sequence[PoolConfig], encrypted: bool) -> None:
    """Workers started here listen on Unix sockets, without TLS: others must neither be elsewhere nor insist on it."""
    here = [pool for pool in pools if not pool.addresses]
    away = [pool for pool in pools if any(not is_unix(a) and (encrypted or not stays_here(a)) for a in pool.addresses)]
    for ours, theirs in itertools.product(here, away):
        if (ours.role.prefills and theirs.role.decodes) or (ours.role.decodes and theirs.role.prefills):
            raise ConfigError(
                f"pool {ours.name!r} would be started where pool {theirs.name!r}, elsewhere, cannot reach it: "
                f"start {ours.name!r} with `twinfer worker --listen` and list its addresses, too"
            )


def _deal(cores: Sequence[int], num_hands: int) -> list[tuple[int, ...]]:
    """Consecutive shares, as even as can be; more hands than cores share."""
    if len(cores) < num_hands:
        return [(cores[index % len(cores)],) for index in range(num_hands)]
    bounds = [len(cores) * index // max(1, num_hands) for index in range(num_hands + 1)]
    return [tuple(cores[start:end]) for start, end in itertools.pairwise(bounds)]
