"""Workers that come and go, as a directory tells, and what a launcher hears of it."""

import asyncio
from pathlib import Path

from tests.gateway.scripted_cluster import FakeWorker
from twinfer.cluster.registry import announce, withdraw
from twinfer.core.capabilities import Role
from twinfer.core.ids import WorkerId
from twinfer.gateway.fleet import Fleet
from twinfer.gateway.joining import Comings, tell_reach

OLD, NEW, OTHER = WorkerId("decode-0"), WorkerId("decode-1"), WorkerId("prefill-0")


def address(name: WorkerId) -> str:
    """Where it is said to be."""
    return f"unix:/{name}"


def a_fleet(*names: WorkerId) -> tuple[Fleet, dict[str, FakeWorker]]:
    """A gateway's, which dials these from the start, and all workers there are."""
    workers = {address(name): FakeWorker(name, Role.DECODE) for name in (OLD, NEW, OTHER)}
    return Fleet({name: address(name) for name in names}, lambda where: workers[where]), workers


async def until_present(fleet: Fleet, *names: WorkerId) -> None:
    """Return when these are reached, and no others."""
    while set(fleet.present()) != set(names):
        await asyncio.sleep(0)


async def test_one_takes_anothers_place(tmp_path: Path) -> None:
    """A new one is dialled; the old one, dialled from the start, is forgotten when it has left and not before."""
    announce(tmp_path, OLD, address(OLD))
    fleet, workers = a_fleet(OLD)
    comings = Comings(fleet, tmp_path, encrypted=False, joined={OLD: address(OLD)})
    await until_present(fleet, OLD)
    announce(tmp_path, NEW, address(NEW))
    await comings.look()
    await until_present(fleet, OLD, NEW)
    withdraw(tmp_path, OLD)
    await comings.look()
    assert set(fleet.present()) == {OLD, NEW}
    workers[address(OLD)].die()
    await until_present(fleet, NEW)
    await comings.look()
    assert (fleet.missing(), fleet.awaited()) == ([], False)
    await fleet.close()


async def test_others_are_left_alone(tmp_path: Path) -> None:
    """A worker that is another directory's is neither dialled again nor forgotten."""
    fleet, _ = a_fleet(OTHER)
    comings = Comings(fleet, tmp_path, encrypted=False, others=lambda: (OTHER,))
    link = fleet.link(OTHER)
    announce(tmp_path, OTHER, address(OTHER))
    await comings.look()
    withdraw(tmp_path, OTHER)
    await comings.look()
    assert fleet.link(OTHER) is link
    await until_present(fleet, OTHER)
    await fleet.close()


async def test_who_is_reached_is_told(tmp_path: Path) -> None:
    """Whenever it is somebody else than before."""
    fleet, workers = a_fleet(OLD)
    told: list[tuple[WorkerId, ...]] = []
    telling = asyncio.create_task(tell_reach(fleet, told.append, 0.0))
    await until_present(fleet, OLD)
    fleet.join(NEW, address(NEW))
    while len(told) < 2:
        await asyncio.sleep(0)
    workers[address(OLD)].die()
    while len(told) < 3:
        await asyncio.sleep(0)
    telling.cancel()
    assert told == [(OLD,), (OLD, NEW), (NEW,)]
    await fleet.close()
