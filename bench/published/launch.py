"""Starts a system's programs, waits until they answer, and ends all of their processes however the block is left."""

import contextlib
import os
import re
import signal
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

LOOK_S = 0.25
ANSWER_S = 5.0
ERROR = re.compile(r"\w*(Error|error): ")
END_S = 10.0
"""Then what did not end is killed."""


class StartError(Exception):
    """A system cannot be measured; the message says why, for the report."""


@dataclass(frozen=True, slots=True)
class Program:
    """One process, with those that it starts itself.

    Attributes:
        name: of its log file.
        command: what is run.
        port: on 127.0.0.1.
        ready: what it answers with 200 there once it is ready.
        environment: variables besides this process's own.
        patience_s: for getting ready.
    """

    name: str
    command: Sequence[str]
    port: int
    ready: str
    environment: Mapping[str, str] = field(default_factory=dict)
    patience_s: float = 60.0

    @property
    def url(self) -> str:
        """Where it answers."""
        return f"http://127.0.0.1:{self.port}"


@contextlib.contextmanager
def running(programs: Sequence[Program], logs: Path) -> Iterator[str]:
    """All programs at once; the last one is what clients talk to.

    Args:
        programs: to start.
        logs: the folder of their output.

    Yields:
        The URL of the last one.

    Raises:
        StartError: one of them ended or did not get ready in time; with the end of its log.
    """
    with contextlib.ExitStack() as stack:
        started = [(program, stack.enter_context(_process(program, logs))) for program in programs]
        for program, process in started:
            _await(program, process, logs)
        yield programs[-1].url


@contextlib.contextmanager
def _process(program: Program, logs: Path) -> Iterator["subprocess.Popen[bytes]"]:
    """A process that leads a group of its own, so that Ctrl-C reaches us alone and its children end with it."""
    with _log(program, logs).open("wb") as log:
        try:
            process = subprocess.Popen(
                program.command,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=os.environ | program.environment,
                start_new_session=True,
            )
        except OSError as error:
            raise StartError(f"{program.command[0]} cannot be run: {error.strerror}") from error
    try:
        yield process
    finally:
        _end(process)


def _end(process: "subprocess.Popen[bytes]") -> None:
    """Ask the process to end, then kill whatever of its group is left."""
    process.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(END_S)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _await(program: Program, process: "subprocess.Popen[bytes]", logs: Path) -> None:
    deadline = time.monotonic() + program.patience_s
    while not _answers(program.url + program.ready):
        if process.poll() is not None:
            raise StartError(f"{program.name} ended with {process.returncode}: {_last_words(_log(program, logs))}")
        if time.monotonic() > deadline:
            said = _last_words(_log(program, logs))
            raise StartError(f"{program.name} was not ready within {program.patience_s:g} s: {said}")
        time.sleep(LOOK_S)


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=ANSWER_S) as response:
            return bool(response.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def _log(program: Program, logs: Path) -> Path:
    return logs / f"{program.name}.log"


def _last_words(log: Path) -> str:
    """The last line that is an exception's, or else the last line."""
    lines = [line.strip() for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    errors = [line for line in lines if ERROR.search(line) and "WARNING" not in line]
    return (errors or lines or ["it said nothing"])[-1][-300:]
