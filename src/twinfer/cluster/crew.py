"""The workers that a launcher runs: who they are now, how gateways learn of it, and who died."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path

from twinfer.cluster.child import Command
from twinfer.cluster.registry import announce, withdraw
from twinfer.cluster.standstill import Order, end_standstill, order_standstill
from twinfer.cluster.supervisor import StartError, Supervisor
from twinfer.core.capabilities import Role
from twinfer.core.ids import WorkerId
from twinfer.core.process import WorkerSpec

LOOK_S = 0.05
MEET_S = 10.0
"""In which every gateway has to reach a new worker: it looks four times a second."""
STOP_S = 10.0
ToCommand = Callable[[WorkerSpec], Command]


class Crew:
    """Starts and retires workers while others serve.

    Args:
        supervisor: keeps them running.
        roster: directory in which gateways look for them; they stand there already.
        gateways: the supervisor's names of these, that of the one that changes roles first.
        command: what to run for a worker.
        specs: those that run from the start.
    """

    def __init__(
        self,
        supervisor: Supervisor,
        roster: Path,
        gateways: Sequence[str],
        command: ToCommand,
        specs: Sequence[WorkerSpec],
    ) -> None:
        self.specs = {spec.worker: spec for spec in specs}
        self._supervisor = supervisor
        self._roster = roster
        self._gateways = tuple(gateways)
        self._command = command
        self._fresh: dict[WorkerId, int] = {}
        self._standstills = 0

    async def start(self, specs: Sequence[WorkerSpec], within_s: float) -> None:
        """Start these together; return when they serve and every gateway reaches them.

        Args:
            within_s: that they have to end what gateways sent them, where they cannot stay.

        Raises:
            StartError: one of them does not; none of them is left.
        """
        names = [spec.worker for spec in specs]
        self.specs |= {spec.worker: spec for spec in specs}
        drain_s = 0.0
        try:
            await self._supervisor.start([self._command(spec) for spec in specs])
            self._fresh |= {name: self._supervisor.child(name).pid for name in names}
            drain_s = within_s
            for spec in specs:
                announce(self._roster, spec.worker, spec.listen)
            await self._until_met(frozenset(names))
        except (StartError, OSError) as error:
            await self._remove(names, drain_s)
            raise StartError(str(error)) from error

    async def retire(self, spec: WorkerSpec, within_s: float) -> None:
        """Let it end what it has, and forget it; gateways do so once it is gone."""
        await self._remove([spec.worker], within_s)

    @contextlib.asynccontextmanager
    async def standstill(self, workers: Iterable[WorkerId], within_s: float) -> AsyncIterator[Mapping[WorkerId, Role]]:
        """Roles of those of these workers that serve; nobody's is changed as long as the context lasts.

        Raises:
            StartError: after that time they are still being changed, or not known.
        """
        self._standstills += 1
        serving = tuple(worker for worker in workers if self._supervisor.child(worker).serves)
        order_standstill(self._roster, Order(self._standstills, serving))
        try:
            yield await self._until_still(within_s)
        finally:
            end_standstill(self._roster)

    async def _until_still(self, within_s: float) -> Mapping[WorkerId, Role]:
        try:
            async with asyncio.timeout(within_s):
                while True:
                    told = self._supervisor.child(self._gateways[0]).standstill
                    if told is not None and told.order == self._standstills:
                        return told.roles
                    await asyncio.sleep(LOOK_S)
        except TimeoutError as error:
            raise StartError(
                f"after {within_s:g} s roles are still being changed, or some worker is not reached; roll again later"
            ) from error

    def forget_fresh(self) -> None:
        """From now on nobody is new: who dies is started again, and that is all."""
        self._fresh.clear()

    def fallen(self) -> str | None:
        """Which of the new workers died since it was started, in words."""
        return self._fallen(self._fresh)

    def _fallen(self, names: Collection[WorkerId]) -> str | None:
        for name in names:
            child = self._supervisor.child(name)
            if child.pid != self._fresh[name] or not child.serves:
                return f"{name} died at its first requests"
        return None

    async def _until_met(self, names: frozenset[WorkerId]) -> None:
        try:
            async with asyncio.timeout(MEET_S):
                while not all(names <= self._supervisor.child(gateway).reaches for gateway in self._gateways):
                    if (fallen := self._fallen(names)) is not None:
                        raise StartError(fallen)
                    await asyncio.sleep(LOOK_S)
        except TimeoutError as error:
            raise StartError(f"not every gateway reached {', '.join(sorted(names))} in {MEET_S:g} s") from error

    async def _remove(self, names: Sequence[WorkerId], within_s: float) -> None:
        for name in names:
            self._fresh.pop(name, None)
            self.specs.pop(name, None)
        await self._supervisor.retire(names, within_s, STOP_S)
        for name in names:
            withdraw(self._roster, name)
