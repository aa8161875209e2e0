"""Measures cell after cell, and says how far it is."""

import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.published.cells import Cell, Manner, failure_path, measured, options, trace_path, warm_up
from bench.published.launch import StartError, running
from bench.published.schedule import Turn, cell_seconds, spoken, turns
from bench.published.systems import Site
from bench.published.workloads import write_trace

Say = Callable[[str], None]
FIRST_REALTIME = 1
KEPT = ("goodput", "highest", "no rate", "INVALID", "twinfer:")
"""Beginnings of the lines of ``twinfer bench run`` that are shown."""


def free_ports() -> Iterator[int]:
    """Ports of 127.0.0.1 that nobody listens on, no two the same."""
    given: set[int] = set()
    while True:
        with socket.socket() as sock:
            sock.bind(("127.0.0.1", 0))
            port = int(sock.getsockname()[1])
        if port not in given:
            given.add(port)
            yield port


def forget(cells: Sequence[Cell], folder: Path) -> None:
    """Remove what was measured of these."""
    for cell in cells:
        for workload in (None, cell.workload):
            failure_path(folder, cell.system, workload).unlink(missing_ok=True)
        cell.path(folder).unlink(missing_ok=True)


@dataclass(frozen=True, slots=True)
class Campaign:
    """What is measured and where it is kept.

    Attributes:
        cells: what is to be measured, in order.
        folder: of their files.
        say: is told of progress.
    """

    cells: Sequence[Cell]
    manner: Manner
    site: Site
    folder: Path
    say: Say

    def run(self) -> None:
        """Measure whatever is left, one system after the other."""
        for workload in {cell.workload for cell in self.cells}:
            write_trace(workload.lengths.rows(), trace_path(workload, self.folder))
        left = turns(cell for cell in self.cells if not self._is_done(cell))
        for number, turn in enumerate(left):
            self._say_left(f"starting {turn.system.title}", left[number:])
            try:
                self._measure(turn, left[number + 1 :])
            except StartError as error:
                self._failed(failure_path(self.folder, turn.system), str(error))

    def _is_done(self, cell: Cell) -> bool:
        return measured(cell, self.folder, options(cell, self.folder, self.manner)) is not None

    def _measure(self, turn: Turn, later: Sequence[Turn]) -> None:
        began = time.monotonic()
        failure_path(self.folder, turn.system).unlink(missing_ok=True)
        with running(turn.system.programs(self.site), self.site.folder) as url:
            self.say(f"  ready after {time.monotonic() - began:.0f} s")
            for number, workload in enumerate(turn.workloads):
                cell = Cell(turn.system, workload)
                rest = sum(cell_seconds(one, self.manner) for one in turn.workloads[number:])
                self._say_left(f"  {workload.title}", later, rest)
                self._offer(cell, url)

    def _offer(self, cell: Cell, url: str) -> None:
        reason = failure_path(self.folder, cell.system, cell.workload)
        reason.unlink(missing_ok=True)
        _bench(url, warm_up(cell, self.folder))
        said = _said_most(_bench(url, options(cell, self.folder, self.manner)))
        self.say("\n".join(f"    {line}" for line in said))
        if not self._is_done(cell):
            self._failed(reason, said[-1] if said else "twinfer bench run said nothing")

    def _failed(self, path: Path, reason: str) -> None:
        path.write_text(f"{reason}\n", encoding="utf-8")
        self.say(f"  left out: {reason}")

    def _say_left(self, what: str, left: Sequence[Turn], more_s: float = 0.0) -> None:
        seconds = more_s + sum(turn.seconds(self.manner) for turn in left)
        self.say(f"{what}; about {spoken(seconds)} left")


def _bench(url: str, arguments: Sequence[str]) -> str:
    """``twinfer bench run``, before all others where the system allows it; what it said."""
    command = [sys.executable, "-m", "twinfer", "bench", "run", url, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, preexec_fn=_first)
    return done.stdout if done.returncode == 0 else done.stdout + done.stderr


def _first() -> None:
    """A client that is late measures itself; it uses little, so nobody is disturbed."""
    with contextlib.suppress(PermissionError):
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(FIRST_REALTIME))


def _said_most(said: str) -> list[str]:
    """What counts most of what a run said."""
    lines = [line for line in said.splitlines() if line.strip()]
    return [line for line in lines if line.startswith(KEPT)] or lines[-1:]
