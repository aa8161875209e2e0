"""What ``twinfer serve`` does when it is told to change a model's weights (``cluster/rolling.py``)."""

import contextlib
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from itertools import count
from pathlib import Path

import msgspec

from twinfer.cli.checking import Question, Served, checked_apart
from twinfer.cluster.crew import MEET_S, Crew
from twinfer.cluster.orders import Roll, Say
from twinfer.cluster.plan import model_of
from twinfer.cluster.registry import read_registry
from twinfer.cluster.rolling import carry_out, schedule
from twinfer.cluster.turnover import Change, turnover
from twinfer.core.capabilities import Role
from twinfer.core.config import Config, ModelConfig
from twinfer.core.config_text import dump_config, parse_config
from twinfer.core.errors import ConfigError
from twinfer.core.ids import WorkerId
from twinfer.core.process import WorkerSpec

_FIXED = ("name", "role", "model", "engine", "workers", "cores", "addresses", "latency")
"""Keys of a pool that say what a deployment is made of, and that gateways know."""


class Rolls:
    """Carries out orders to change weights.

    Args:
        served: from the start, by the names of the configuration.
        crew: the workers, as they are meant to be, by directories.
        run_dir: private directory for sockets.
        changed: told what is served from now on.
        echo: shows on the deployment's terminal what whoever gave the order is told.
    """

    def __init__(self, served: Served, crew: Crew, run_dir: Path, changed: Callable[[Served], None], echo: Say) -> None:
        self._served = served.pinned()
        self._crew = crew
        self._places = tuple(crew.specs.values())
        self._run_dir = run_dir
        self._changed = changed
        self._echo = echo

    async def carry_out(self, order: Roll, say: Say) -> None:
        """Check that it can be done, then do it.

        Raises:
            TwinferError: nothing was changed, or, as it says, not all of it.
        """

        def tell(text: str) -> None:
            say(text)
            self._echo(text)

        config, model = ordered(self._served.config, order)
        other = bool(order.source) and not self._is_unfinished(model.id)
        served = await checked_apart(Question(self._served, config, model, other=other))
        within_s = config.gateway.request_timeout_s if order.within_s is None else order.within_s
        async with self._still(model.id) as roles:
            steps = schedule(self._changes(served.config, model.id, roles), in_place=order.in_place)
            if not steps:
                raise ConfigError("every worker of the model is like that already, so nothing is to be changed")
            try:
                await carry_out(self._crew, steps, within_s, tell)
            finally:
                self._crew.forget_fresh()
        self._served = served
        self._changed(served)
        tell(f"{model.id} has its new weights; write them into the configuration, too, for the next `twinfer serve`")

    @contextlib.asynccontextmanager
    async def _still(self, key: str) -> AsyncIterator[Mapping[WorkerId, Role]]:
        """No role changes meanwhile; those of a model's workers, where they may differ from their pools'."""
        config = self._served.config
        if not config.elastic.enabled:
            yield {}
            return
        workers = [worker for worker, spec in self._crew.specs.items() if spec.model.id == key]
        async with self._crew.standstill(workers, config.handoff.drain_s + MEET_S) as roles:
            yield roles

    def _is_unfinished(self, key: str) -> bool:
        """Whether an earlier roll left workers of a model that are not as they are served."""
        return any(change.leaver or change.comer for change in self._changes(self._served.config, key, {}))

    def _changes(self, config: Config, key: str, roles: Mapping[WorkerId, Role]) -> list[Change]:
        """What becomes of each worker of the model; new ones have the first free names."""
        model = next(model for model in config.model if model.id == key)
        pools = {pool.name: pool for pool in config.pool if model_of(config, pool).id == key}
        taken = set(self._crew.specs)
        if config.registry:
            taken |= read_registry(Path(config.registry), encrypted=config.tls.enabled).keys()

        def wish(spec: WorkerSpec) -> WorkerSpec:
            return msgspec.structs.replace(spec, model=model, pool=pools[spec.pool.name])

        def name(spec: WorkerSpec) -> WorkerSpec:
            worker = free_name(spec.pool.name, taken)
            taken.add(worker)
            return msgspec.structs.replace(spec, worker=worker, listen=f"unix:{self._run_dir}/{worker}.sock")

        places, present = (
            [spec for spec in specs if spec.pool.name in pools] for specs in (self._places, self._crew.specs.values())
        )
        return turnover(places, present, wish, name, roles)


def free_name(pool: str, taken: Collection[WorkerId]) -> WorkerId:
    """The first name of a pool's workers that nobody has."""
    return next(name for index in count() if (name := WorkerId(f"{pool}-{index}")) not in taken)


def ordered(config: Config, order: Roll) -> tuple[Config, ModelConfig]:
    """The configuration as it is to be, and the model whose workers make way for others.

    Raises:
        ConfigError: there is no such model, its workers were started elsewhere, or what is ordered takes more than
            other workers.
    """
    if not order.source and not order.sets:
        raise ConfigError("nothing is to be changed: name the new weights, as in `twinfer roll ./my-model-v2`")
    model = next((model for model in config.model if model.id == (order.model or config.model[0].id)), None)
    if model is None:
        known = ", ".join(model.id for model in config.model)
        raise ConfigError(f"there is no model {order.model!r}; known are {known}")
    wished = parse_config(dump_config(config), order.sets)
    if [pool.name for pool in wished.pool] != [pool.name for pool in config.pool]:
        raise ConfigError("a roll changes pools that there are; start the deployment again with others")
    for before, after in zip(config.pool, wished.pool, strict=True):
        mine = model_of(config, before).id == model.id
        if mine and before.addresses:
            raise ConfigError(
                f"the workers of pool {before.name!r} were started elsewhere: start others there with the new weights, "
                "with `registry`, and then stop these with SIGTERM (docs/operations.md)"
            )
        if before != after and not (mine and all(getattr(before, key) == getattr(after, key) for key in _FIXED)):
            raise ConfigError(f"pool {before.name!r} cannot be changed like that while it serves; start again with it")
    if msgspec.structs.replace(wished, pool=config.pool) != config:
        raise ConfigError("a roll changes a model's SOURCE and its pools, nothing else: start the deployment again")
    if order.source:
        model = msgspec.structs.replace(model, source=order.source)
    models = tuple(model if each.id == model.id else each for each in config.model)
    return msgspec.structs.replace(wished, model=models), model
