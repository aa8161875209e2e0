"""Roles that stay while a launcher changes workers, and who says so."""

import asyncio
from pathlib import Path

import msgspec

from tests.gateway.scripted_cluster import LOAD, Cluster, FakeWorker
from twinfer.cluster.standstill import Order, end_standstill, order_standstill
from twinfer.core.capabilities import Role
from twinfer.core.clock import MonotonicClock
from twinfer.core.config import Config, ElasticConfig, RoutingConfig
from twinfer.core.ids import ModelId, WorkerId
from twinfer.core.messages import Become, Load
from twinfer.core.process import Standstill
from twinfer.gateway.elastic import SETTLE_S, Pause, keep_in_shape

P, D0, D1 = WorkerId("p"), WorkerId("d0"), WorkerId("d1")
ROLES = {P: Role.PREFILL, D0: Role.DECODE, D1: Role.DECODE}
FIRST, SECOND = (Order(number, tuple(ROLES)) for number in (1, 2))


async def cluster() -> Cluster:
    """A gateway that reaches all of its workers."""
    made = Cluster(Config())
    await made.until(lambda: len(made.fleet.present()) == len(ROLES))
    return made


def say_draining(worker: FakeWorker, draining: bool) -> None:
    """It begins or ends to turn."""
    worker.say(Load(msgspec.structs.replace(LOAD, draining=draining)))


async def test_the_answer_to_an_order(tmp_path: Path) -> None:
    """Once, when nobody turns any more, and whoever was told to has had time to say so; again for another order."""
    house, told = await cluster(), list[Standstill]()
    pause = Pause(tmp_path, told.append)
    assert not pause.lasts(house.fleet, 10.0)
    order_standstill(tmp_path, FIRST)
    say_draining(house.d1, True)
    await house.until(lambda: len(house.fleet.snapshot().workers) == 2)
    assert [pause.lasts(house.fleet, 10.0 + late_s) for late_s in (0.0, SETTLE_S, 9.0)] == [True] * 3
    assert [] == told
    say_draining(house.d1, False)
    await house.until(lambda: len(house.fleet.snapshot().workers) == 3)
    assert [pause.lasts(house.fleet, now) for now in (20.0, 21.0)] == [True] * 2
    assert [Standstill(1, ROLES)] == told
    end_standstill(tmp_path)
    assert not pause.lasts(house.fleet, 30.0)
    order_standstill(tmp_path, SECOND)
    assert [pause.lasts(house.fleet, now) for now in (40.0, 40.0 + SETTLE_S)] == [True] * 2
    assert [Standstill(1, ROLES), Standstill(2, ROLES)] == told
    await house.fleet.close()


async def test_a_worker_that_is_not_reached(tmp_path: Path) -> None:
    """Its role is not known: there is no answer before it is."""
    house, told = await cluster(), list[Standstill]()
    pause = Pause(tmp_path, told.append)
    order_standstill(tmp_path, FIRST)
    house.d1.die()
    await house.until(lambda: D1 in house.fleet.missing())
    assert [pause.lasts(house.fleet, now) for now in (10.0, 20.0)] == [True] * 2
    assert [] == told
    house.d1.down = False
    async with asyncio.timeout(20):
        await house.until(lambda: D1 in house.fleet.present())
    assert (pause.lasts(house.fleet, 30.0), [Standstill(1, ROLES)]) == (True, told)
    await house.fleet.close()


async def test_workers_that_an_order_does_not_name(tmp_path: Path) -> None:
    """They may turn, leave, or not be there: that is nothing to whoever ordered it."""
    house, told = await cluster(), list[Standstill]()
    pause = Pause(tmp_path, told.append)
    order_standstill(tmp_path, Order(1, (P,)))
    say_draining(house.d0, True)
    house.d1.die()
    await house.until(lambda: len(house.fleet.snapshot().workers) == 1)
    assert [pause.lasts(house.fleet, now) for now in (10.0, 20.0)] == [True] * 2
    assert [Standstill(1, {P: Role.PREFILL})] == told
    await house.fleet.close()


async def test_no_wish_while_roles_stay(tmp_path: Path) -> None:
    """However high the pressure; afterwards it is looked at anew."""
    house, told = await cluster(), list[Standstill]()
    order_standstill(tmp_path, FIRST)
    house.p.say(Load(msgspec.structs.replace(LOAD, waiting_tokens=100_000)))
    model = ModelId(house.p.identity.capabilities.model)
    config = ElasticConfig(prefill_tokens=1, window_s=0.0)
    pause = Pause(tmp_path, told.append)
    shaping = asyncio.create_task(
        keep_in_shape(house.fleet, (model,), config, RoutingConfig(), MonotonicClock(), pause)
    )
    async with asyncio.timeout(20):
        while not told:
            await asyncio.sleep(0.01)
        assert (True, True) == (house.d0.heard.empty(), house.d1.heard.empty())
        end_standstill(tmp_path)
        while house.d0.heard.empty() and house.d1.heard.empty():
            await asyncio.sleep(0.01)
    (heard,) = [worker.heard.get_nowait() for worker in (house.d0, house.d1) if not worker.heard.empty()]
    assert isinstance(heard, Become)
    assert Role.PREFILL is heard.role
    shaping.cancel()
    await asyncio.wait([shaping])
    await house.fleet.close()
