"""What a deployment costs that nobody asks anything: CPU time of each process, as a share of one core.

python -m bench.idle
python -m bench.idle --seconds 60 --set link.transport=tcp
"""

import argparse
import os
import sys
import time
from pathlib import Path

from bench.deployment import SERVE, started


def cpu_s(pid: int) -> float:
    """CPU seconds of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def name_of(pid: int) -> str:
    """The module that a process runs."""
    return Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[2].decode()


def main() -> int:
    """Start, wait, measure, print, stop."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=20.0, help="of idleness (default: 20)")
    parser.add_argument("--set", action="append", default=[], metavar="A.B=C", help="passed on to twinfer serve")
    options = parser.parse_args()
    overrides = [part for setting in options.set for part in ("--set", setting)]
    with started([*SERVE, *overrides]) as served:
        children = Path(f"/proc/{served.pid}/task/{served.pid}/children").read_text().split()
        pids = [served.pid, *map(int, children)]
        before = [cpu_s(pid) for pid in pids]
        time.sleep(options.seconds)
        for pid, used in zip(pids, before, strict=True):
            print(f"{name_of(pid):<16}{(cpu_s(pid) - used) / options.seconds:>8.2%} of a core")
    return 0


if __name__ == "__main__":
    sys.exit(main())
