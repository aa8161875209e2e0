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
        failure_path(cell.system, folder).unlink(missing_ok=True)
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
                failure_path(turn.system, self.folder).write_text(f"{error}\n", encoding="utf-8")
                self.say(f"  left out: {error}")

    def _is_done(self, cell: Cell) -> bool:
        return measured(cell, self.folder, options(cell, self.folder, self.manner)) is not None

    def _measure(self, turn: Turn, later: Sequence[Turn]) -> None:
        began = time.monotonic()
        failure_path(turn.system, self.folder).unlink(missing_ok=True)
        with running(turn.system.programs(self.site), self.site.folder) as url:
            self.say(f"  ready after {time.monotonic() - began:.0f} s")
            for number, workload in enumerate(turn.workloads):
                cell = Cell(turn.system, workload)
                rest = sum(cell_seconds(one, self.manner) for one in turn.workloads[number:])
                self._say_left(f"  {workload.title}", later, rest)
                _bench(url, warm_up(cell, self.folder))
                self.say(_last_line(_bench(url, options(cell, self.folder, self.manner))))

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


def _last_line(said: str) -> str:
    """What counts most of what a run said."""
    lines = [line for line in said.splitlines() if line.strip()]
    chosen = [line for line in lines if line.startswith(("goodput", "highest", "no rate", "INVALID", "twinfer:"))]
    return "".join(f"    {line}\n" for line in chosen or lines[-1:]).rstrip("\n")
