"""Orders to a running deployment: a Unix socket in its private directory, one order a connection, lines of JSON.

Whoever can open the socket belongs to the deployment's user: the directory has mode 0700. An order that was taken is
carried out, even when whoever gave it does not wait for its end.
"""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import TypeAlias

import msgspec

from twinfer.cluster.deployment import ORDERS
from twinfer.core.errors import ConfigError, TwinferError
from twinfer.core.ids import ModelId

logger = logging.getLogger(__name__)


class Roll(msgspec.Struct, frozen=True):
    """Change a model's weights, worker by worker.

    Args:
        source: where the new ones are: an absolute directory, or a Hugging Face id; empty keeps the present one.
        model: whose; empty for the first.
        sets: overrides of the configuration besides, for its pools.
        within_s: that each worker has to end what it has; ``None`` as long as a request may take.
        in_place: old workers go before new ones come.
    """

    source: str = ""
    model: ModelId = ModelId("")
    sets: tuple[str, ...] = ()
    within_s: float | None = None
    in_place: bool = False


class Told(msgspec.Struct, frozen=True):
    """What is being done; with ``end`` it is over, and ``error`` says why it was not done."""

    text: str = ""
    end: bool = False
    error: str = ""


Say: TypeAlias = Callable[[str], None]
CarryOut: TypeAlias = Callable[[Roll, Say], Awaitable[None]]
"""Raises a ``TwinferError`` when the order cannot be carried out."""


@contextlib.asynccontextmanager
async def taking_orders(directory: Path, carry_out: CarryOut) -> AsyncIterator[None]:
    """Take orders, one at a time, for as long as the context lasts; what is under way at its end is cancelled."""
    office = _Office(carry_out)
    server = await asyncio.start_unix_server(office.serve, str(directory / ORDERS))
    try:
        yield
    finally:
        server.close()
        await office.close()
        (directory / ORDERS).unlink(missing_ok=True)


async def give_order(directory: Path, roll: Roll, say: Say) -> None:
    """Give one, and return when it was carried out.

    Raises:
        ConfigError: the deployment takes none, ended meanwhile, or refused it, for that reason.
    """
    try:
        reader, writer = await asyncio.open_unix_connection(str(directory / ORDERS))
    except OSError as error:
        raise ConfigError("the deployment takes no orders yet, or no longer: wait until it serves") from error
    try:
        writer.write(msgspec.json.encode(roll) + b"\n")
        while line := await reader.readline():
            told = msgspec.json.decode(line, type=Told)
            if told.error:
                raise ConfigError(told.error)
            if told.end:
                return
            say(told.text)
    finally:
        writer.close()
    raise ConfigError("the deployment ended before it was done")


class _Office:
    """Takes orders on connections."""

    def __init__(self, carry_out: CarryOut) -> None:
        self._carry_out = carry_out
        self._work: asyncio.Future[None] | None = None

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""

        def tell(told: Told) -> None:
            if not writer.is_closing():
                writer.write(msgspec.json.encode(told) + b"\n")

        try:
            with contextlib.suppress(ConnectionError):
                tell(await self._answer(await reader.readline(), lambda text: tell(Told(text))))
                await writer.drain()
        finally:
            writer.close()

    async def close(self) -> None:
        """Stop what is under way."""
        if self._work is not None:
            self._work.cancel()
            await asyncio.gather(self._work, return_exceptions=True)

    async def _answer(self, line: bytes, say: Say) -> Told:
        try:
            roll = msgspec.json.decode(line, type=Roll)
        except msgspec.DecodeError as error:
            return Told(end=True, error=f"this is no order that this version of twinfer understands: {error}")
        if self._work is not None and not self._work.done():
            return Told(end=True, error="weights are being changed already; wait until that is done")
        self._work = work = asyncio.ensure_future(self._carry_out(roll, say))
        await asyncio.wait({work})
        if work.cancelled():
            return Told(end=True, error="the deployment is being stopped")
        failure = work.exception()
        if failure is not None and not isinstance(failure, TwinferError):
            logger.error("an order failed", exc_info=failure)
            return Told(
                end=True, error="a bug ended this half done; the deployment's own terminal says what serves now"
            )
        return Told(end=True, error="" if failure is None else str(failure))
