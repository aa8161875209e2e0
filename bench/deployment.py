"""A deployment of Twinfer as anybody starts one, for the benchmarks that look at it from outside."""

import contextlib
import re
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

READY = re.compile(r"serves (\S+) at (\S+) \(ready")
SERVE = (sys.executable, "-m", "twinfer", "serve", "--port", "0")


@dataclass(frozen=True, slots=True)
class Served:
    """What was started: its model, its address, and the process id of ``twinfer serve``."""

    model: str
    url: str
    pid: int


@contextlib.contextmanager
def deployment(arguments: Sequence[str]) -> Iterator[tuple[str, str]]:
    """``twinfer serve`` with these arguments; its model and address."""
    with started([*SERVE, *arguments]) as served:
        yield served.model, served.url


@contextlib.contextmanager
def started(command: Sequence[str]) -> Iterator[Served]:
    """A command that says on its standard error, as ``twinfer serve`` does, where it serves; it ends with the context.

    Its standard error is read to its end: whoever logs into a full pipe stands still.
    """
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        lines = iter(process.stderr)
        reader = threading.Thread(target=deque, args=(lines, 0), daemon=True)
        try:
            found = next((found for line in lines if (found := READY.search(line))), None)
            if found is None:
                raise SystemExit(f"the deployment did not start: {' '.join(command)}")
            reader.start()
            yield Served(found[1], found[2], process.pid)
        finally:
            process.terminate()
            process.wait()
            if reader.ident is not None:
                reader.join()
