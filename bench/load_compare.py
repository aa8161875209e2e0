"""Whether ``twinfer bench compare`` tells noise from change: pairs of runs against emulated engines.

    python -m bench.load_compare
    python -m bench.load_compare --repetitions 20 --seconds 8 --keep /tmp/pairs
    python -m bench.load_compare --judge /tmp/pairs

Two deployments of `twinfer serve` with an emulated worker, one of them 10 % slower in prefill and in decode. Every
repetition measures the first one twice and the second one once, in an order that changes, and compares. Nothing else
should run on the machine. What was kept can be judged again, say after a change of the rule.
"""

import argparse
import contextlib
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from bench.deployment import deployment as serving
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
        with serving(["--config", config.name]) as (_, url):
            yield url


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


NAMES = ("first", "again", "slow")
"""Of the three runs of a repetition: the first deployment, the same again, and the slower one."""


def repeat(urls: dict[str, str], number: int, folder: Path, options: argparse.Namespace) -> None:
    """The three runs, beginning with another one each time."""
    for name in NAMES[number % 3 :] + NAMES[: number % 3]:
        measure(urls[name], folder / f"{number}.{name}.json", options)


def judge(number: int, folder: Path, margin: float) -> tuple[Comparison, Comparison]:
    """The first deployment against itself, and against the slower one."""
    first, again, slower = (load(folder / f"{number}.{name}.json") for name in NAMES)
    return compare(first, again, margin), compare(first, slower, margin)


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
    parser.add_argument("--keep", type=Path, metavar="DIR", help="keep the runs there")
    parser.add_argument("--judge", type=Path, metavar="DIR", help="measure nothing, compare what was kept there")
    options = parser.parse_args()
    if options.judge is not None:
        kept = sorted(int(path.name.split(".")[0]) for path in options.judge.glob("*.slow.json"))
        show([judge(number, options.judge, options.margin) for number in kept])
        return 0
    found = []
    with (
        contextlib.ExitStack() as stack,
        deployment(1.0) as base,
        deployment(1.1) as slow,
    ):
        folder = options.keep or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        folder.mkdir(parents=True, exist_ok=True)
        for number in range(options.repetitions):
            repeat({"first": base, "again": base, "slow": slow}, number, folder, options)
            found.append(judge(number, folder, options.margin))
            print(f"{number + 1}: {'; '.join(one.verdict for one in found[-1])}", file=sys.stderr, flush=True)
    show(found)
    return 0


def show(found: Sequence[tuple[Comparison, Comparison]]) -> None:
    """All verdicts, and how many are right."""
    table = Table("", "the same again", "10 % slower")
    for number, (same, other) in enumerate(found, 1):
        table.add_row(str(number), same.verdict, other.verdict)
    Console().print(table)
    alike = sum(not any(change.differs for change in same.changes) for same, _ in found)
    told = sum(any(change.differs and change.change.value > 0 for change in other.changes) for _, other in found)
    print(f"no difference: {alike} of {len(found)}; 10 % slower found: {told} of {len(found)}")


if __name__ == "__main__":
    sys.exit(main())
