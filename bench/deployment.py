"""A deployment of Twinfer as anybody starts one, for the benchmarks that look at it from outside."""

import contextlib
import re
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Iterator, Sequence

READY = re.compile(r"serves (\S+) at (\S+) \(ready")


@contextlib.contextmanager
def deployment(arguments: Sequence[str]) -> Iterator[tuple[str, str]]:
    """``twinfer serve`` with these arguments; its model and address."""
    command = [sys.executable, "-m", "twinfer", "serve", "--port", "0", *arguments]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        lines = iter(process.stderr)
        # Read to its end: whoever logs into a full pipe stands still.
        reader = threading.Thread(target=deque, args=(lines, 0), daemon=True)
        try:
            found = next((found for line in lines if (found := READY.search(line))), None)
            if found is None:
                raise SystemExit(f"the deployment did not start: {' '.join(command)}")
            reader.start()
            yield found[1], found[2]
        finally:
            process.terminate()
            process.wait()
            if reader.ident is not None:
                reader.join()
