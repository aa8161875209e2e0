"""Carries out what ``handoff/duty.py`` decides: a worker turns to another role, or leaves, and loses no request."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Protocol

from twinfer.core.capabilities import Role
from twinfer.core.errors import WorkerLost
from twinfer.handoff.duty import Duty, DutyState, Order
from twinfer.worker.context import WorkerContext

logger = logging.getLogger(__name__)
LOOK_S = 0.01
LEAVE_ANYWAY_S = 2.0
"""Past the time for that: a worker that is told to stop does not wait for peers that are silent."""


class Desk(Protocol):
    """Whoever knows what is under way."""

    def num_open(self) -> int:
        """0 when nothing is."""
        ...

    def hand_back(self) -> None:
        """Give up all of it."""
        ...


class Turning:
    """One worker's changes of role, and its end.

    Args:
        context: its identity is replaced at the end of a turn.
        desk: knows what is under way.
        announce: tells gateways of the worker's state, and of a new identity if there is one.
        hang_up: ends control streams to sinks, on which it introduced itself with the epoch before.
    """

    def __init__(
        self,
        context: WorkerContext,
        desk: Desk,
        announce: Callable[[], None],
        hang_up: Callable[[], Awaitable[None]],
    ) -> None:
        self._context = context
        self._desk = desk
        self._announce = announce
        self._hang_up = hang_up
        self._duty = Duty(context.identity, context.handoff.drain_s)
        self._work: asyncio.Task[None] | None = None

    @property
    def takes_new(self) -> bool:
        """Whether new work is taken."""
        return self._duty.takes_new

    async def turn(self, role: Role) -> None:
        """Return when the worker has this role.

        Raises:
            WorkerLost: it is turning to another role, or leaves.
        """
        now = self._context.clock.now()
        objection = self._duty.turn(role, now)
        if objection is not None:
            raise WorkerLost(objection)
        await self._until_done()
        if self._context.identity.role is not role:
            raise WorkerLost(f"{self._context.identity.worker} leaves; choose another worker")
        logger.info("serves as %s since %.2f s after it was asked to", role.value, self._context.clock.now() - now)

    async def leave(self, within_s: float | None = None) -> None:
        """Return when nothing is under way any more, or nearly so.

        Args:
            within_s: how long what is under way may take to finish; ``None`` takes ``handoff.drain_s``.
        """
        within_s = self._context.handoff.drain_s if within_s is None else within_s
        self._duty.leave(self._context.clock.now(), within_s)
        try:
            async with asyncio.timeout(within_s + LEAVE_ANYWAY_S):
                await self._until_done()
        except TimeoutError:
            logger.warning("left with %d requests and handoffs open", self._desk.num_open())

    async def _until_done(self) -> None:
        if self._work is None or self._work.done():
            self._work = asyncio.create_task(self._drain())
        await asyncio.shield(self._work)

    async def _drain(self) -> None:
        if self._duty.state in (DutyState.SERVING, DutyState.GONE):
            return
        self._announce()
        while True:
            order = self._duty.look(self._desk.num_open(), self._context.clock.now())
            if order is Order.HAND_BACK:
                self._desk.hand_back()
            elif order is Order.TURN:
                await self._hang_up()
                self._context.identity = self._duty.identity
                self._announce()
                return
            elif order is Order.GO:
                return
            await asyncio.sleep(LOOK_S)
