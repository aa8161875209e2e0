"""A whole ``twinfer serve``, as its users see it: a tree of processes, an address, metrics, and nothing afterwards."""

import contextlib
import os
import re
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import IO, Any, TypeVar

import httpx

from tests.e2e import processes
from tests.e2e.series import Scrape, read_scrape

START_S = 120.0
WAIT_S = 60.0
"""Limits that only end what hangs: many times what it takes on a slow and busy machine."""
_POLL_S = 0.02
RULE = "routing.policy=threshold"
"""For tests that say which way a request goes and do not force it, where engines report what their steps cost: by
default, that depends on how quick this machine is today."""
T = TypeVar("T")


def eventually(look: Callable[[], T | None], what: str, within_s: float = WAIT_S) -> T:
    """What ``look`` returns as soon as that is something; fails past the deadline."""
    deadline = time.monotonic() + within_s
    while (found := look()) is None:
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {within_s:g} s: {what}")
        time.sleep(_POLL_S)
    return found


class Output:
    """The lines that a process writes, as they come."""

    def __init__(self, stream: IO[str]) -> None:
        self.lines: list[str] = []
        self._changed = threading.Condition()
        self._ended = False
        self._thread = threading.Thread(target=self._read, args=(stream,), daemon=True)
        self._thread.start()

    @property
    def text(self) -> str:
        """All of it so far."""
        return "\n".join(self.lines)

    def wait_for(self, pattern: str, start: int = 0, within_s: float = WAIT_S) -> re.Match[str]:
        """The first line from ``start`` on in which the pattern is found."""
        deadline = time.monotonic() + within_s
        with self._changed:
            while True:
                for line in self.lines[start:]:
                    if match := re.search(pattern, line):
                        return match
                if self._ended or not self._changed.wait(max(0.0, deadline - time.monotonic())):
                    raise AssertionError(f"never said {pattern!r}:\n{self.text}")

    def join(self) -> None:
        """Return when there is nothing more to read."""
        self._thread.join(WAIT_S)

    def _read(self, stream: IO[str]) -> None:
        with stream:
            for line in stream:
                with self._changed:
                    self.lines.append(line.rstrip("\n"))
                    self._changed.notify_all()
        with self._changed:
            self._ended = True
            self._changed.notify_all()


class Deployment:
    """A running ``twinfer`` command.

    Args:
        directory: its temporary files go here, and must be gone at the end.
        arguments: after ``python -m twinfer``.
        environment: in addition to this process's.
    """

    def __init__(self, directory: Path, arguments: Sequence[str], environment: dict[str, str] | None = None) -> None:
        self.directory = directory
        self.mark = f"TWINFER_TEST={uuid.uuid4().hex}"
        name, value = self.mark.split("=")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "twinfer", *arguments],
            env=os.environ | {"TMPDIR": str(directory), name: value} | (environment or {}),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        assert self.process.stdout is not None
        self.output = Output(self.process.stdout)
        self.url = ""
        self.ready_s = 0.0

    def wait_ready(self) -> None:
        """Return when it says that it serves."""
        said = self.output.wait_for(r"serves \S+ at (https?://\S+) \(ready in ([\d.]+) s\)", within_s=START_S)
        self.url, self.ready_s = said[1], float(said[2])

    @property
    def pids(self) -> list[int]:
        """Every process of it, the parent first, restarted children included."""
        return sorted(processes.marked(self.mark), key=lambda pid: (pid != self.process.pid, pid))

    @property
    def children(self) -> list[int]:
        """Gateway and workers."""
        return [pid for pid in self.pids if processes.module_of(pid) in ("twinfer.gateway", "twinfer.worker")]

    def pid(self, name: str) -> int:
        """The process of a worker, or ``gateway``, as soon as it is there."""

        def look() -> int | None:
            if name == "gateway":
                return next((pid for pid in self.pids if processes.module_of(pid) == "twinfer.gateway"), None)
            return processes.listener_of(f"/{name}.sock", self.children)

        return eventually(look, f"a process of {name}")

    def kill(self, name: str, number: signal.Signals = signal.SIGKILL) -> int:
        """Send a signal to a child; returns how many lines were said before."""
        said = len(self.output.lines)
        os.kill(self.pid(name), number)
        return said

    def wait_restarted(self, name: str, said: int) -> None:
        """Return when a killed child was announced dead, started again, and is part of the deployment again."""
        self.output.wait_for(rf"{name} was killed by SIGKILL; starting it again", said)
        self.output.wait_for(rf"{name}: ready", said)
        self.wait_workers()

    @property
    def workers(self) -> set[str]:
        """Names of the configuration's workers, as it says them."""
        return set(re.findall(r"^  (\S+) +(?:prefill|decode|both) ", self.output.text, re.MULTILINE))

    def wait_workers(self) -> None:
        """Return when the gateway reaches every worker of the configuration."""
        self.scrape()

    def scrape(self) -> Scrape:
        """The workers' metrics of a moment at which every worker of the configuration answers: a number that is
        missing cannot be taken for 0."""
        names = self.workers
        return eventually(lambda: self._look(lambda scrape: set(scrape.roles) >= names), f"all of {sorted(names)}")

    def wait_for(self, condition: Callable[[Scrape], bool], within_s: float = WAIT_S) -> Scrape:
        """The first scrape of which the condition holds; workers that do not answer are not in it."""
        return eventually(lambda: self._look(condition), "a state of the workers", within_s)

    def post(self, path: str, **content: Any) -> httpx.Response:
        """The answer to a request, waited for with more patience than httpx has by itself."""
        return httpx.post(f"{self.url}{path}", timeout=WAIT_S, **content)

    def wait_idle(self, within_s: float = WAIT_S, names: Collection[str] | None = None) -> float:
        """Seconds until all workers, or those named, answer and hold nothing for anybody."""
        started, names, last = time.monotonic(), set(names or self.workers), dict[str, float]()

        def is_idle(scrape: Scrape) -> bool:
            nonlocal last
            last = scrape.unrest() | {f"{worker} silent": 1.0 for worker in names - set(scrape.roles)}
            return bool(scrape.roles) and not last

        while self._look(is_idle) is None:
            if time.monotonic() > started + within_s:
                raise AssertionError(f"after {within_s:g} s there still is {last}")
            time.sleep(_POLL_S)
        return time.monotonic() - started

    def stop(self, number: signal.Signals = signal.SIGTERM, within_s: float = WAIT_S) -> int:
        """Ask it to end; its exit code. Fails if anything of it is left anywhere."""
        self.process.send_signal(number)
        code = self.process.wait(within_s)
        self.check_nothing_left()
        return code

    def check_nothing_left(self, within_s: float = 0.0, *, orphaned: bool = False) -> None:
        """Fail if a process, a file or shared memory of it is left; while time lasts, wait for the processes' end.

        Of an ``orphaned`` deployment, whose parent was killed, an empty directory stays.
        """
        eventually(lambda: None if self.pids else True, f"the end of {self.pids}", within_s)
        self.output.join()
        assert sorted(self.directory.glob("twinfer-*/*" if orphaned else "twinfer-*")) == []
        assert sorted(Path("/dev/shm").glob("*twinfer*")) == []

    def destroy(self) -> None:
        """Leave nothing, whatever happened."""
        for pid in self.pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()
        self.output.join()

    def _look(self, condition: Callable[[Scrape], bool]) -> Scrape | None:
        with contextlib.suppress(httpx.HTTPError):
            scrape = read_scrape(httpx.get(f"{self.url}/metrics", timeout=10).raise_for_status().text)
            return scrape if condition(scrape) else None
        return None


@contextlib.contextmanager
def serving(
    directory: Path, config: str = "", *sets: str, key: bytes | None = None, source: Path | None = None
) -> Iterator[Deployment]:
    """A deployment that is ready, and afterwards ended on SIGTERM with code 0 and without a trace or a traceback.

    Args:
        directory: for its files.
        config: TOML; empty takes the default topology.
        sets: ``a.b=c`` overrides.
        key: cluster key; drawn by the deployment itself when not given.
        source: checkpoint to serve instead of what the configuration says.
    """
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / "deployment.toml"
    path.write_text(config)
    overrides = [word for override in sets for word in ("--set", override)]
    environment = {} if key is None else {"TWINFER_CLUSTER_KEY": key.hex()}
    arguments = ["serve", *([] if source is None else [str(source)]), "--config", str(path), "--port", "0", *overrides]
    deployment = Deployment(directory, arguments, environment)
    try:
        deployment.wait_ready()
        yield deployment
        if deployment.process.poll() is None:
            assert deployment.stop() == 0, deployment.output.text
        assert "Traceback" not in deployment.output.text, deployment.output.text
    finally:
        deployment.destroy()
