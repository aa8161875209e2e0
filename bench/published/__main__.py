"""The same work against Twinfer, vLLM and llama.cpp; writes docs/benchmarks.md and its figures.

    python -m bench.published CHECKPOINT
    python -m bench.published CHECKPOINT --full
    python -m bench.published CHECKPOINT --report-only

At fixed rates it takes about 25 minutes; with --full it searches the highest rate of every cell, which takes hours, and
goes on where it was when it is started again. Nothing else should run on the machine.
"""

import argparse
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

from bench.pages import bring
from bench.published import catalogue
from bench.published.campaign import Campaign, forget, free_ports
from bench.published.cells import Cell, Manner
from bench.published.checkpoint import with_vocabulary
from bench.published.report import figures, page
from bench.published.standing import Standing
from bench.published.systems import Site
from bench.published.workloads import WORKLOADS
from twinfer.core.errors import ConfigError

ROOT = Path(__file__).parents[2]
FULL_STRETCH = 3.0
"""Loads of a search are so many times as long as those at fixed rates."""
QUIET_LOAD = 0.5
"""Above it somebody else is at work."""


def main(arguments: Sequence[str] | None = None) -> int:
    """2: it cannot be done as asked; else as ``run`` says."""
    try:
        return run(_parser().parse_args(arguments))
    except ConfigError as error:
        print(f"python -m bench.published: {error}", file=sys.stderr)
        return 2


def run(asked: argparse.Namespace) -> int:
    """Measure what is left and write the report; 130 after Ctrl-C.

    Raises:
        ConfigError: there is no such system, or no such checkpoint.
    """
    signal.signal(signal.SIGTERM, _interrupt)
    manner = Manner(asked.full, asked.stretch or (FULL_STRETCH if asked.full else 1.0))
    folder = Path(asked.folder or ROOT / ".bench" / ("full" if asked.full else "fixed")).resolve()
    cells = _chosen(catalogue.in_full() if asked.full else catalogue.at_fixed_rates(), asked.only, asked.workloads)
    if not asked.report_only:
        if not asked.full and not asked.resume:
            forget(cells, folder)
        source = asked.checkpoint.resolve()
        model = with_vocabulary(source, folder / f"{source.name}-words")
        site = Site(model, asked.peers.absolute(), folder, sorted(os.sched_getaffinity(0)), free_ports())
        _say(_busy(os.getloadavg()[0]))
        try:
            Campaign(cells, manner, site, folder, _say).run()
        except KeyboardInterrupt:
            print("interrupted; what was measured is kept, and --resume goes on from there", file=sys.stderr)
            return 130
    standing = Standing(cells, manner, folder)
    written = {asked.page: page(standing)}
    written |= {asked.page.parent / "figures" / name: svg for name, svg in figures(standing).items()}
    return bring(written, check=False)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bench.published", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("checkpoint", type=Path, help="directory of one bf16 checkpoint of Qwen2's shape with random weights")
    add("--full", action="store_true", help="search the highest rate of each cell; goes on where it was")
    add("--resume", action="store_true", help="go on where it was at fixed rates, too, instead of from the beginning")
    add("--report-only", action="store_true", help="measure nothing, write the report of what there is")
    add("--only", nargs="+", metavar="SYSTEM", help="these only: " + ", ".join(one.name for one in catalogue.SYSTEMS))
    add("--workloads", nargs="+", metavar="NAME", choices=[one.name for one in WORKLOADS], help="these only")
    add("--stretch", type=float, help="loads take so many times as long (default: 1; 3 with --full)")
    add("--folder", type=Path, help="of the cells' files (default: .bench/fixed or .bench/full)")
    add(
        "--page", type=Path, default=ROOT / "docs" / "benchmarks.md", help="what to write (default: docs/benchmarks.md)"
    )
    add("--peers", type=Path, default=ROOT / ".venv-peers", help="where make bench-setup put them")
    return parser


def _chosen(cells: Sequence[Cell], systems: Sequence[str] | None, workloads: Sequence[str] | None) -> list[Cell]:
    """Those of these systems and workloads.

    Raises:
        ConfigError: there are none of a system.
    """
    known = list(dict.fromkeys(one.system.name for one in cells))
    for name in systems or ():
        if name not in known:
            raise ConfigError(f"no system {name!r} is measured here; choose of {', '.join(known)}")
    return [
        one
        for one in cells
        if (systems is None or one.system.name in systems) and (workloads is None or one.workload.name in workloads)
    ]


def _busy(load: float) -> str:
    """Whether others use the machine."""
    found = f"the load of this machine is {load:.1f}"
    return f"{found}: end what else runs, or the figures say little" if load > QUIET_LOAD else f"{found}: quiet enough"


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
