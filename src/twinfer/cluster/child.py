"""One child process: started with a JSON line, watched through its notices, stopped with patience, then without."""

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass

import msgspec

from twinfer.core.ids import WorkerId
from twinfer.core.process import CLUSTER_KEY_VARIABLE, READY, Leave, Notice, Standstill

KILL_AFTER_S = 10.0
LEAVE_GRACE_S = 5.0
"""Past the time that a process has to leave: it ends what peers still hold, and itself."""
_decoder = msgspec.json.Decoder(Notice)


@dataclass(frozen=True, slots=True)
class Command:
    """What to start.

    Attributes:
        name: shown to people.
        module: run with ``python -m``.
        spec: one JSON document, without a line break.
        pass_fds: file descriptors to inherit.
        withheld: environment variables that it does not inherit.
    """

    name: str
    module: str
    spec: bytes
    pass_fds: tuple[int, ...] = ()
    withheld: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Life:
    """How long a process took to get ready, and for how long it then served, in seconds; 0 if it never did."""

    starting_s: float
    serving_s: float


class Child:
    """A running process.

    Args:
        command: what it is.
        on_notice: called for everything it says.

    Attributes:
        ready: set once it serves.
        error: why it cannot, in its own words.
        reaches: workers that it says it reaches, if it is a gateway.
        standstill: that it last told of.
    """

    def __init__(self, command: Command, on_notice: Callable[[str, Notice], None]) -> None:
        self.command = command
        self.ready = asyncio.Event()
        self.error = ""
        self.reaches: frozenset[WorkerId] = frozenset()
        self.standstill: Standstill | None = None
        self._on_notice = on_notice
        self._process: asyncio.subprocess.Process | None = None
        self._born_s = self._ready_s = self._died_s = 0.0

    @property
    def pid(self) -> int:
        """Its process id; 0 before the start."""
        return self._process.pid if self._process is not None else 0

    @property
    def serves(self) -> bool:
        """Whether it got ready and has not ended."""
        return self.ready.is_set() and self._process is not None and self._process.returncode is None

    @property
    def life(self) -> Life:
        """Its life so far, or to its end."""
        end_s = self._died_s or asyncio.get_running_loop().time()
        ready_s = self._ready_s if self.ready.is_set() else end_s
        return Life(ready_s - self._born_s, end_s - ready_s)

    async def start(self, cluster_key: bytes) -> None:
        """Start it and hand over its spec."""
        self._born_s = asyncio.get_running_loop().time()
        inherited = {name: value for name, value in os.environ.items() if name not in self.command.withheld}
        environment = inherited | {CLUSTER_KEY_VARIABLE: cluster_key.hex()}
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            self.command.module,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            env=environment,
            pass_fds=self.command.pass_fds,
            start_new_session=True,  # a Ctrl-C is the parent's to handle, in order
        )
        assert self._process.stdin is not None
        self._process.stdin.write(self.command.spec + b"\n")
        with contextlib.suppress(ConnectionError):
            await self._process.stdin.drain()

    async def watch(self) -> int:
        """Pass on its notices until it ends; its exit code, negative for a signal."""
        assert self._process is not None
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            try:
                notice = _decoder.decode(line)
            except msgspec.DecodeError:
                print(f"{self.command.name}: {line.decode(errors='replace').rstrip()}", file=sys.stderr)
                continue
            if notice.stage == READY and not self.ready.is_set():
                self._ready_s = asyncio.get_running_loop().time()
                self.ready.set()
            self.error = notice.error or self.error
            self.reaches = self.reaches if notice.reaches is None else frozenset(notice.reaches)
            self.standstill = notice.standstill or self.standstill
            self._on_notice(self.command.name, notice)
        code = await self._process.wait()
        self._died_s = asyncio.get_running_loop().time()
        return code

    async def leave(self, within_s: float) -> None:
        """Tell it to take nothing new and to end when it is done; return when it has ended, or its time is over."""
        process = self._process
        if process is None or process.returncode is not None:
            return
        assert process.stdin is not None
        with contextlib.suppress(ConnectionError):
            process.stdin.write(msgspec.json.encode(Leave(within_s)) + b"\n")
            await process.stdin.drain()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(process.wait(), within_s + LEAVE_GRACE_S)

    async def stop(self, patience_s: float = KILL_AFTER_S) -> None:
        """Ask it to end, and after a while make it."""
        process = self._process
        if process is None or process.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGTERM)
            try:
                await asyncio.wait_for(process.wait(), patience_s)
            except TimeoutError:
                process.kill()
                await process.wait()

    def kill(self) -> None:
        """Make it end, without patience."""
        if self._process is not None and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()


def describe_exit(code: int) -> str:
    """How a process ended, in words."""
    if code >= 0:
        return f"ended with exit code {code}"
    try:
        return f"was killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"was killed by signal {-code}"
