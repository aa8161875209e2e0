"""A deployment of Twinfer as anybody starts one, for the benchmarks that look at it from outside."""

import contextlib
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence

READY = re.compile(r"serves (\S+) at (\S+) \(ready")


@contextlib.contextmanager
def deployment(arguments: Sequence[str]) -> Iterator[tuple[str, str]]:
    """``twinfer serve`` with these arguments; its model and address."""
    command = [sys.executable, "-m", "twinfer", "serve", "--port", "0", *arguments]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        try:
            for line in process.stderr:
                if found := READY.search(line):
                    yield found[1], found[2]
                    return
            raise SystemExit(f"the deployment did not start: {' '.join(command)}")
        finally:
            process.terminate()
            process.communicate()
