"""Whether ``twinfer bench compare`` tells noise from change: pairs of runs against emulated engines.

    python -m bench.load_compare
    python -m bench.load_compare --repetitions 20 --seconds 8

Two deployments of `twinfer serve` with an emulated worker, one of them 10 % slower in prefill and in decode. Every
repetition measures the first one twice and the second one once, in an order that changes, and compares. Nothing else
should run on the machine.
"""

import argparse
import contextlib
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console
from rich.table import Table

from twinfer.loadtest.compare import MARGIN, Comparison, compare
from twinfer.loadtest.result import load

TRIES = 3
PREFILL_TOKENS_PER_S, STEP_MS = 2500.0, 20.0
DEPLOYMENT = """
[[model]]
id = "emulated.model"

[[pool]]
name = "both"
role = "both"
engine = "emulated"
kv_mib = 64
[pool.emulation]
prefill_tokens_per_s = {prefill}
decode_step_ms = {step}
"""


@contextlib.contextmanager
def deployment(slower: float) -> Iterator[str]:
    """The URL of one whose engine takes so many times as long."""
    with tempfile.NamedTemporaryFile("w", suffix=".toml") as config:
        config.write(DEPLOYMENT.format(prefill=PREFILL_TOKENS_PER_S / slower, step=STEP_MS * slower))
        config.flush()
        command = [sys.executable, "-m", "twinfer", "serve", "--port", "0", "--config", config.name]
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        assert process.stderr is not None
        try:
            found = next((at for line in process.stderr if (at := re.search(r"http://[\d.]+:\d+", line))), None)
            if found is None:
                raise SystemExit("the deployment did not start")
            yield found[0]
        finally:
            process.send_signal(signal.SIGTERM)
            process.communicate()


def measure(url: str, path: Path, options: argparse.Namespace) -> None:
    """One run."""
    command = [sys.executable, "-m", "twinfer", "bench", "run", url, "--json", str(path), "--ignore-eos"]
    load_options = ["--rate", str(options.rate), "--duration", str(options.seconds), "--input", "64..512"]
    limits = ["--output", "24", "--max-lag", str(options.max_lag)]
    for _ in range(TRIES):
        done = subprocess.run([*command, *load_options, *limits], capture_output=True, text=True, check=False)
        if done.returncode == 0:
            return
        print(f"a run did not count and is repeated:\n{done.stdout}{done.stderr}", file=sys.stderr, flush=True)
    raise SystemExit("no run counts on this machine; stop what else is running")


def repetition(base: str, slow: str, number: int, options: argparse.Namespace) -> tuple[Comparison, Comparison]:
    """The first deployment against itself, and against the slower one."""
    with tempfile.TemporaryDirectory() as folder:
        runs = {"first": base, "again": base, "slow": slow}
        names = list(runs)[number % 3 :] + list(runs)[: number % 3]
        for name in names:
            measure(runs[name], Path(folder, name), options)
        first, again, slower = (load(Path(folder, name)) for name in runs)
        return compare(first, again, options.margin), compare(first, slower, options.margin)


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.load_compare", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repetitions", type=int, default=20, help="(default: 20)")
    parser.add_argument("--seconds", type=float, default=8.0, help="of each run (default: 8)")
    parser.add_argument("--rate", type=float, default=6.0, help="requests per second (default: 6)")
    parser.add_argument("--margin", type=float, default=MARGIN, help=f"of the comparison (default: {MARGIN})")
    parser.add_argument("--max-lag", type=float, default=10.0, help="of the client, in ms (default: 10)")
    options = parser.parse_args()
    alike = found = 0
    table = Table("", "the same again", "10 % slower")
    with deployment(1.0) as base, deployment(1.1) as slow:
        for number in range(options.repetitions):
            same, other = repetition(base, slow, number, options)
            alike += not any(change.differs for change in same.changes)
            found += any(change.differs and change.change.value > 0 for change in other.changes)
            table.add_row(str(number + 1), same.verdict, other.verdict)
            counts = f"no difference in {alike}, 10 % slower found in {found}"
            print(f"{number + 1}: {same.verdict}; {other.verdict}; {counts}", file=sys.stderr, flush=True)
    Console().print(table)
    print(f"no difference: {alike} of {options.repetitions}; 10 % slower found: {found} of {options.repetitions}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
