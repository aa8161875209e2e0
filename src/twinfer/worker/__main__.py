"""``python -m twinfer.worker``: a worker under a launcher, which writes its spec to standard input."""

import sys

from twinfer.cluster.lifeline import cluster_key, notify, read_spec
from twinfer.core.errors import TwinferError
from twinfer.core.process import Notice, WorkerSpec
from twinfer.worker.process import run_worker


def main() -> int:
    """Run until the launcher goes or says so."""
    try:
        spec, key = read_spec(WorkerSpec), cluster_key()
    except TwinferError as error:
        notify(Notice(error=str(error)))
        return 2
    return run_worker(spec, key, watch_stdin=True)


if __name__ == "__main__":
    sys.exit(main())
