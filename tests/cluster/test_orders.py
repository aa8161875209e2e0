"""Orders to a deployment over its socket."""

import asyncio
from pathlib import Path

import pytest

from twinfer.cluster.deployment import ORDERS
from twinfer.cluster.orders import Roll, Say, give_order, taking_orders
from twinfer.core.errors import CheckpointError, ConfigError

ORDER = Roll(source="/new", sets=("a.b=c",), within_s=3.0)


@pytest.fixture
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory whose path is short enough for a socket's."""
    return tmp_path_factory.mktemp("o")


async def test_is_carried_out(place: Path) -> None:
    """It arrives as it was given, what is said comes back line by line, and the socket goes with the deployment."""
    got, said = list[Roll](), list[str]()

    async def carry_out(roll: Roll, say: Say) -> None:
        got.append(roll)
        say("one")
        say("two")

    async with taking_orders(place, carry_out):
        await give_order(place, ORDER, said.append)
        await give_order(place, ORDER, said.append)
    assert (got, said) == ([ORDER, ORDER], ["one", "two"] * 2)
    assert not (place / ORDERS).exists()
    with pytest.raises(ConfigError, match="takes no orders"):
        await give_order(place, ORDER, said.append)


async def test_refusal(place: Path) -> None:
    """The deployment's reason is the one that is shown."""

    async def carry_out(roll: Roll, say: Say) -> None:
        raise CheckpointError("no such weights")

    async with taking_orders(place, carry_out):
        with pytest.raises(ConfigError, match=r"^no such weights$"):
            await give_order(place, ORDER, lambda text: None)


async def test_one_at_a_time(place: Path) -> None:
    """A second order is refused, also when whoever gave the first one has left; the end of all cancels it."""
    begun, ended = asyncio.Event(), list[str]()

    async def carry_out(roll: Roll, say: Say) -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            ended.append("cancelled")
            raise

    async with taking_orders(place, carry_out):
        first = asyncio.create_task(give_order(place, ORDER, lambda text: None))
        await begun.wait()
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
        with pytest.raises(ConfigError, match="being changed already"):
            await give_order(place, ORDER, lambda text: None)
        assert ended == []
    assert ended == ["cancelled"]


async def test_no_order(place: Path) -> None:
    """What another version sends is answered, and harms nothing."""

    async def carry_out(roll: Roll, say: Say) -> None:
        raise AssertionError

    async with taking_orders(place, carry_out):
        reader, writer = await asyncio.open_unix_connection(str(place / ORDERS))
        writer.write(b"hello\n")
        assert b"no order that this version" in await reader.readline()
        writer.close()
