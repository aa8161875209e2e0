"""Keeps a set of processes running: starts them together, restarts what dies, stops all of them in order.

1. A process that ends before it was ever ready ends the start, with its own reason.
2. One that dies later is started again, and it is said so: at once if it had served for longer than it took to get
   ready, and otherwise ever more slowly.
3. Stopping goes group by group: gateways drain first, workers after.
4. Processes may come and go meanwhile. One that is to go takes nothing new, ends when it is done, and is not started
   again whatever it dies of.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import Protocol

from twinfer.cluster.child import Child, Command, Life, describe_exit
from twinfer.core.errors import TwinferError
from twinfer.core.process import Notice

FIRST_PAUSE_S = 0.1
MAX_PAUSE_S = 10.0
CALM_S = 1.0
"""A process that served for less than that failed at what it is for."""


def next_pause_s(last_s: float, life: Life) -> float:
    """How long to wait before starting a process again that died after this life.

    A process that fails early, at loading or at its first requests, costs most of its time in starting: each pause is
    twice the last. One that did more than start, however often it is killed, is there again at once.
    """
    if life.serving_s > max(CALM_S, life.starting_s):
        return FIRST_PAUSE_S
    return min(max(FIRST_PAUSE_S, last_s * 2), MAX_PAUSE_S)


class StartError(TwinferError):
    """A process could not start; the message is its own reason."""


class Reporter(Protocol):
    """Whoever tells people what happens."""

    def stage(self, name: str, stage: str) -> None:
        """A process is doing this now."""
        ...

    def died(self, name: str, how: str, again_in_s: float) -> None:
        """A process died and will be started again."""
        ...


class Supervisor:
    """Owner of all child processes.

    Args:
        cluster_key: for the children.
        reporter: tells people.
        changed: called whenever process ids have changed.
    """

    def __init__(self, cluster_key: bytes, reporter: Reporter, changed: Callable[[], None] = lambda: None) -> None:
        self._cluster_key = cluster_key
        self._reporter = reporter
        self._changed = changed
        self._children: dict[str, Child] = {}
        self._commands: dict[str, Command] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._ending: set[str] = set()

    @property
    def pids(self) -> dict[str, int]:
        """Process ids by name."""
        return {name: child.pid for name, child in self._children.items()}

    def child(self, name: str) -> Child:
        """The process of this name as it is now; another one once it was started again."""
        return self._children[name]

    def amend(self, command: Command) -> None:
        """When the process of this name is started again, start this."""
        self._commands[command.name] = command

    async def start(self, commands: Sequence[Command]) -> None:
        """Start these together and return when all are ready.

        Raises:
            StartError: one of them ended instead.
        """
        waiting = []
        for command in commands:
            child = Child(command, self._noticed)
            self._commands[command.name] = command
            self._children[command.name] = child
            self._ending.discard(command.name)
            await child.start(self._cluster_key)
            self._changed()
            first_life: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._tasks[command.name] = asyncio.create_task(self._keep(command.name, child, first_life))
            waiting.append(first_life)
        await asyncio.gather(*waiting)

    async def stop(self, names: Sequence[str], patience_s: float) -> None:
        """Stop these, all at once."""
        self._ending.update(names)
        children = [self._children[name] for name in names if name in self._children]
        await asyncio.gather(*(child.stop(patience_s) for child in children))
        tasks = [self._tasks.pop(name) for name in names if name in self._tasks]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def retire(self, names: Sequence[str], within_s: float, patience_s: float) -> None:
        """Let these end what they have, and forget them.

        Args:
            within_s: how long that may take; 0 stops them as ``stop`` does.
            patience_s: how long they may then take to end.
        """
        self._ending.update(names)
        children = [self._children[name] for name in names if name in self._children]
        if within_s > 0:
            await asyncio.gather(*(child.leave(within_s) for child in children))
        await self.stop(names, patience_s)
        for name in names:
            self._children.pop(name, None)
            self._commands.pop(name, None)
        self._changed()

    def kill(self) -> None:
        """End all of them now; ``stop`` then returns at once."""
        self._ending.update(self._children)
        for child in self._children.values():
            child.kill()

    async def _keep(self, name: str, child: Child, first_life: "asyncio.Future[None]") -> None:
        watch = asyncio.create_task(child.watch())
        ready = asyncio.create_task(child.ready.wait())
        await asyncio.wait({watch, ready}, return_when=asyncio.FIRST_COMPLETED)
        if not child.ready.is_set():
            ready.cancel()
            reason = child.error or f"{name} {describe_exit(await watch)} before it was ready"
            first_life.set_exception(StartError(reason))
            return
        first_life.set_result(None)
        pause_s = 0.0
        while True:
            code = await watch
            if name in self._ending:
                return
            pause_s = next_pause_s(pause_s, child.life)
            self._reporter.died(name, child.error or describe_exit(code), pause_s)
            await asyncio.sleep(pause_s)
            if name in self._ending:
                return
            child = self._children[name] = Child(self._commands[name], self._noticed)
            await child.start(self._cluster_key)
            self._changed()
            watch = asyncio.create_task(child.watch())

    def _noticed(self, name: str, notice: Notice) -> None:
        if notice.stage:
            self._reporter.stage(name, notice.stage)
