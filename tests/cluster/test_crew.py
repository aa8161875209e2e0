"""Workers that come and go under a supervisor, with real processes: what gateways are told, and who is missed."""

import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from tests.cluster.child_process import Play
from tests.cluster.test_rolling import a_spec
from tests.cluster.test_supervisor import Told, command, told
from twinfer.cluster import crew as crew_module
from twinfer.cluster.child import Command
from twinfer.cluster.crew import Crew
from twinfer.cluster.registry import read_registry
from twinfer.cluster.standstill import Order, standing_order
from twinfer.cluster.supervisor import StartError, Supervisor
from twinfer.core.capabilities import Role
from twinfer.core.ids import WorkerId
from twinfer.core.process import Standstill, WorkerSpec

OLD, NEW, BAD, UNMET, BACK = (a_spec(Role.DECODE, name, "demo") for name in ("old", "new", "bad", "unmet", "back"))
ROLES = {WorkerId("old"): Role.PREFILL}
GATEWAY = Play(reaches=(WorkerId("new"), WorkerId("bad"), WorkerId("back")), standstill=Standstill(2, ROLES))


def to_command(spec: WorkerSpec) -> Command:
    """A process in a worker's place."""
    play = Play(error="bad weights") if spec.worker == "bad" else Play(leaves=0)
    return Command(spec.worker, "tests.cluster.child_process", msgspec.json.encode(play))


@pytest.fixture
async def supervisor() -> AsyncIterator[Supervisor]:
    """One whose children are gone afterwards."""
    supervisor = Supervisor(bytes(32), Told())
    await supervisor.start([to_command(OLD), command("gateway", GATEWAY)])
    yield supervisor
    await supervisor.stop(list(supervisor.pids), 5.0)


@pytest.fixture
def crew(supervisor: Supervisor, tmp_path: Path) -> Crew:
    """One worker, that the gateway knows from the start."""
    return Crew(supervisor, tmp_path, ["gateway"], to_command, [OLD])


async def test_one_takes_anothers_place(crew: Crew, supervisor: Supervisor, tmp_path: Path) -> None:
    """Gateways are told of the new one once it is ready, and no more of the old one once it has left."""
    await crew.start([NEW], 1.0)
    assert read_registry(tmp_path, encrypted=False) == {"new": NEW.listen}
    assert (crew.specs, set(supervisor.pids)) == ({"old": OLD, "new": NEW}, {"old", "new", "gateway"})
    await crew.retire(NEW, 60.0)
    assert (crew.specs, set(supervisor.pids)) == ({"old": OLD}, {"old", "gateway"})
    assert read_registry(tmp_path, encrypted=False) == {}


async def test_nothing_is_left_of_those_that_do_not_start(crew: Crew, supervisor: Supervisor, tmp_path: Path) -> None:
    """Their companions go, too, and the reason is their own."""
    with pytest.raises(StartError, match=r"^bad weights$"):
        await crew.start([NEW, BAD], 1.0)
    assert (crew.specs, set(supervisor.pids)) == ({"old": OLD}, {"old", "gateway"})
    assert read_registry(tmp_path, encrypted=False) == {}


async def test_a_worker_that_gateways_do_not_reach(
    crew: Crew, supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is no use that it serves."""
    monkeypatch.setattr(crew_module, "MEET_S", 0.1)
    with pytest.raises(StartError, match="not every gateway reached unmet"):
        await crew.start([UNMET], 1.0)
    assert set(supervisor.pids) == {"old", "gateway"}


async def test_roles_stay_as_a_gateway_says(crew: Crew, tmp_path: Path) -> None:
    """In answer to this order, not to another one; and the order does not outlast the need for it."""
    with pytest.raises(StartError, match=r"after 0\.1 s roles are still being changed"):
        async with crew.standstill(crew.specs, 0.1):
            pass
    assert standing_order(tmp_path) is None
    async with crew.standstill(crew.specs, 10.0) as roles:
        assert (Order(2, (OLD.worker,)), ROLES) == (standing_order(tmp_path), roles)
    assert standing_order(tmp_path) is None


async def test_a_worker_that_is_started_again_is_not_asked_for_its_role(
    crew: Crew, supervisor: Supervisor, tmp_path: Path
) -> None:
    """It will have that of its pool; one that always dies must not keep a roll from replacing it."""
    os.kill(supervisor.pids["old"], signal.SIGKILL)
    async with told(supervisor).changed:
        await told(supervisor).changed.wait_for(lambda: told(supervisor).deaths)
    with pytest.raises(StartError):
        async with crew.standstill(crew.specs, 0.0):
            pass
    async with crew.standstill(crew.specs, 10.0):
        assert Order(2, ()) == standing_order(tmp_path)


async def test_a_new_worker_that_dies_is_missed(crew: Crew, supervisor: Supervisor) -> None:
    """Even when it is started again; an old one that dies is not, nor is anybody once all is over."""
    await crew.start([NEW], 1.0)
    assert crew.fallen() is None
    os.kill(supervisor.pids["old"], signal.SIGKILL)
    os.kill(supervisor.pids["new"], signal.SIGKILL)
    await told(supervisor).until_ready("new", 2)
    assert crew.fallen() == "new died at its first requests"
    crew.forget_fresh()
    assert crew.fallen() is None


async def test_the_way_back_is_open_when_a_new_worker_died(crew: Crew, supervisor: Supervisor) -> None:
    """Its fall does not concern those that are started because of it."""
    await crew.start([NEW], 1.0)
    os.kill(supervisor.pids["new"], signal.SIGKILL)
    await told(supervisor).until_ready("new", 2)
    assert crew.fallen() is not None
    await crew.start([BACK], 1.0)
    assert {"old", "new", "back", "gateway"} == set(supervisor.pids)
