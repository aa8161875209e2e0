"""What may be changed in a deployment that serves, and how new workers are named."""

import shutil
from pathlib import Path

import msgspec
import pytest

from tests.cluster.child_process import Play
from tests.cluster.test_supervisor import Told
from twinfer.cli.checking import Served
from twinfer.cli.rolls import Rolls, free_name, ordered
from twinfer.cluster.child import Command
from twinfer.cluster.crew import Crew
from twinfer.cluster.orders import Roll
from twinfer.cluster.plan import plan_local
from twinfer.cluster.rolling import RollFailed
from twinfer.cluster.supervisor import Supervisor
from twinfer.core.capabilities import Role
from twinfer.core.config import Config, ModelConfig, PoolConfig
from twinfer.core.errors import ConfigError
from twinfer.core.ids import ModelId, WorkerId
from twinfer.core.process import WorkerSpec
from twinfer.model.checkpoint import locate

CONFIG = Config(
    model=(ModelConfig("a.first-v1:0"), ModelConfig("b.second-v1:0")),
    pool=(
        PoolConfig(name="one", role=Role.BOTH),
        PoolConfig(name="two", role=Role.BOTH, model="b.second-v1:0"),
        PoolConfig(name="far", role=Role.BOTH, model="b.second-v1:0", addresses=("127.0.0.1:7001",)),
    ),
)
FIRST, SECOND = CONFIG.model


def willing(spec: WorkerSpec) -> Command:
    """A process in a worker's place, that leaves when it is told to."""
    return Command(spec.worker, "tests.cluster.child_process", msgspec.json.encode(Play(leaves=0)))


def test_a_source() -> None:
    """Of the first model unless another is named, and nothing else changes."""
    config, model = ordered(CONFIG, Roll("/new"))
    assert model == msgspec.structs.replace(FIRST, source="/new")
    assert config == msgspec.structs.replace(CONFIG, model=(model, SECOND))


def test_pools() -> None:
    """Keys of the model's own pools, with the source as it is."""
    config, model = ordered(CONFIG, Roll(sets=("pool.one.emulation.seed=1",)))
    assert (model, config.pool[0].emulation.seed, config.pool[1:]) == (FIRST, 1, CONFIG.pool[1:])


@pytest.mark.parametrize(
    ("order", "reason"),
    [
        (Roll(), "nothing is to be changed"),
        (Roll("/new", ModelId("c")), "there is no model 'c'; known are a.first-v1:0, b.second-v1:0"),
        (Roll("/new", ModelId("b.second-v1:0")), "pool 'far' were started elsewhere"),
        (Roll(sets=("pool.two.kv_mib=7",)), "pool 'two' cannot be changed like that"),
        (Roll(sets=("pool.one.workers=7",)), "pool 'one' cannot be changed like that"),
        (Roll(sets=("gateway.port=7",)), "a roll changes a model's SOURCE and its pools, nothing else"),
        (Roll(sets=("model.0.source='/new'",)), "nothing else"),
        (Roll(sets=("pool.one.kv_mip=7",)), "did you mean 'kv_mib'"),
        (Roll(sets=("pool=[]",)), "a roll changes pools that there are"),
    ],
)
def test_refusals(order: Roll, reason: str) -> None:
    """Each says what is wrong."""
    with pytest.raises(ConfigError, match=reason):
        ordered(CONFIG, order)


async def test_a_roll_that_could_not_be_undone_is_ended_by_another(tmp_path: Path) -> None:
    """It fills the place that has nobody and leaves those alone that are new; then there is nothing to do."""
    broken = set[str]()

    def to_command(spec: WorkerSpec) -> Command:
        if spec.worker not in broken:
            return willing(spec)
        play = Play(error=f"{spec.worker} is broken")
        return Command(spec.worker, "tests.cluster.child_process", msgspec.json.encode(play))

    two = PoolConfig(name="two", role=Role.BOTH, workers=2)
    config = Config(model=(ModelConfig("twinfer.demo-v1:0"),), pool=(two,))
    served = Served(config, {ModelId(config.model[0].id): str(locate("demo").resolve())})
    specs = plan_local(served.pinned().config, [0], str(tmp_path), "").workers
    supervisor, order = Supervisor(bytes(32), Told()), Roll(sets=("pool.two.kv_mib=7",), in_place=True)
    crew, now = Crew(supervisor, tmp_path, [], to_command, specs), list[Served]()
    rolls = Rolls(served, crew, tmp_path, now.append, lambda text: None)
    await supervisor.start(list(map(to_command, specs)))
    try:
        broken |= {"two-1", "two-3"}
        with pytest.raises(
            RollFailed, match=r"in part .*two-3 is broken.*cannot be undone \(two-1 is broken\).*roll again"
        ):
            await rolls.carry_out(order, lambda text: None)
        assert ({"two-2": 7}, []) == ({name: spec.pool.kv_mib for name, spec in crew.specs.items()}, now)
        broken.clear()
        await rolls.carry_out(order, lambda text: None)
        assert {"two-0": 7, "two-2": 7} == {name: spec.pool.kv_mib for name, spec in crew.specs.items()}
        assert [7] == [each.config.pool[0].kv_mib for each in now]
        with pytest.raises(ConfigError, match="every worker of the model is like that already"):
            await rolls.carry_out(order, lambda text: None)
    finally:
        await supervisor.stop(list(supervisor.pids), 5.0)


async def test_a_name_that_has_come_to_mean_other_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All workers make way, though their model's name stays; a roll of pools alone keeps what they have; and what is
    served already is no news."""
    cache = tmp_path / "models--some--model"
    old, new = (cache / "snapshots" / name for name in ("old", "new"))
    for snapshot in (old, new):
        shutil.copytree(locate("demo"), snapshot)
    (cache / "refs").mkdir()
    (cache / "refs" / "main").write_text("new")
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    one = PoolConfig(name="one", role=Role.BOTH)
    config = Config(model=(ModelConfig("a.first-v1:0", "some/model"),), pool=(one,))
    served = Served(config, {ModelId("a.first-v1:0"): str(old)})
    specs = plan_local(served.pinned().config, [0], str(tmp_path), "").workers
    supervisor = Supervisor(bytes(32), Told())
    crew, now = Crew(supervisor, tmp_path, [], willing, specs), list[Served]()
    rolls = Rolls(served, crew, tmp_path, now.append, lambda text: None)
    await supervisor.start(list(map(willing, specs)))
    try:
        for order in (Roll(sets=("pool.one.kv_mib=7",)), Roll("some/model")):
            await rolls.carry_out(order, lambda text: None)
            found = [(spec.worker, spec.model.source, spec.pool.kv_mib) for spec in crew.specs.values()]
            assert [("one-0", str(new), 7) if order.source else ("one-1", str(old), 7)] == found
        assert [str(old), str(new)] == [each.directories[ModelId("a.first-v1:0")] for each in now]
        with pytest.raises(ConfigError, match="new is what is served"):
            await rolls.carry_out(Roll("some/model"), lambda text: None)
    finally:
        await supervisor.stop(list(supervisor.pids), 5.0)


def test_names() -> None:
    """The first that is free, so that names come again and do not grow for ever."""
    taken = {WorkerId(f"decode-{index}") for index in (0, 1, 3)}
    assert free_name("decode", taken) == "decode-2"
    assert free_name("prefill", taken) == "prefill-0"
