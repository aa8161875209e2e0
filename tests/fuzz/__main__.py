"""``python -m tests.fuzz``: many worlds, a table of the faults in them, and the seed of the first that went wrong."""

import argparse
import contextlib
import multiprocessing
import sys
import time
from collections import Counter
from dataclasses import dataclass, field, fields

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from tests.fuzz.faults import Faults
from tests.fuzz.mutants import MUTANTS
from tests.fuzz.virtual_gateway import Wrong
from tests.fuzz.world import World

BATCH = 50
MUTANT_WORLDS = 4000
FAULT_NAMES = {field.name: field.name.replace("_", " ") for field in fields(Faults)}


@dataclass
class Findings:
    """What some worlds brought."""

    worlds: int = 0
    handoffs: int = 0
    requests: int = 0
    answered: int = 0
    injected: Counter[str] = field(default_factory=Counter)
    fetches: Counter[str] = field(default_factory=Counter)
    wrong: list[tuple[int, str]] = field(default_factory=list)

    def add(self, other: "Findings") -> None:
        """Take in another batch."""
        self.worlds += other.worlds
        self.handoffs += other.handoffs
        self.requests += other.requests
        self.answered += other.answered
        self.injected += other.injected
        self.fetches += other.fetches
        self.wrong += other.wrong


def kind_of(found: str) -> str:
    """What a world that went wrong counts as: ``leaked``, ``hangs`` or ``wrong``."""
    if "leaks" in found or "is not idle" in found:
        return "leaked"
    return "hangs" if "hangs" in found else "wrong"


def explore(seeds: range) -> Findings:
    """Run the worlds of these seeds; the first wrong one ends it."""
    findings = Findings()
    for seed in seeds:
        world = World(seed, Faults())
        try:
            world.run()
        except (Wrong, AssertionError, KeyError, ValueError, IndexError) as error:
            findings.wrong.append((seed, f"{type(error).__name__}: {error}"))
        jobs = [job for gateway in world.gateways for job in gateway.jobs]
        findings.worlds += 1
        findings.handoffs += world.num_handoffs
        findings.requests += len(jobs)
        findings.answered += sum(job.outcomes == [None] for job in jobs)
        findings.injected += world.schedule.injected
        for gateway in world.gateways:
            findings.fetches += gateway.fetches
        if findings.wrong:
            break
    return findings


def fuzz(first_seed: int, handoffs: int, jobs: int, console: Console) -> Findings:
    """Worlds until there were that many handoffs, or one went wrong."""
    total = Findings()
    columns = (TextColumn("handoffs"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    batches = (range(start, start + BATCH) for start in range(first_seed, sys.maxsize, BATCH))
    with multiprocessing.Pool(jobs) as pool, Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("handoffs", total=handoffs)
        running = [pool.apply_async(explore, (next(batches),)) for _ in range(2 * jobs)]
        while total.handoffs < handoffs and not total.wrong:
            total.add(running.pop(0).get())
            running.append(pool.apply_async(explore, (next(batches),)))
            progress.update(task, completed=min(handoffs, total.handoffs))
        pool.terminate()
    return total


def hunt(console: Console) -> bool:
    """Break one rule after the other; whether each was found."""
    table = Table("rule broken", "found", "by", "after worlds")
    all_found = True
    for name, patches in MUTANTS.items():
        with contextlib.ExitStack() as stack:
            for change in patches():
                stack.enter_context(change)
            findings = explore(range(MUTANT_WORLDS))
        found = findings.wrong[0][1][:70] if findings.wrong else ""
        all_found = all_found and bool(findings.wrong)
        table.add_row(name, "yes" if findings.wrong else "NO", found, str(findings.worlds))
    console.print(table)
    return all_found


def report(findings: Findings, seconds: float, console: Console) -> bool:
    """Print what happened; whether all is well, no fault left out."""
    table = Table("fault", "injected")
    for name in FAULT_NAMES.values():
        table.add_row(name, f"{findings.injected[name]:,}")
    console.print(table)
    missing = [name for name in FAULT_NAMES.values() if not findings.injected[name]]
    outcomes = ", ".join(f"{outcome} {count:,}" for outcome, count in sorted(findings.fetches.items()))
    console.print(f"{findings.fetches.total():,} fetches of a prefix: {outcomes}")
    for seed, what in findings.wrong:
        console.print(f"seed {seed}: {what}", style="red", soft_wrap=True)
        console.print(f"replay it with: python -m tests.fuzz --seed {seed}")
    kinds = Counter(kind_of(what) for _, what in findings.wrong)
    console.print(
        f"{findings.handoffs:,} handoffs in {findings.worlds:,} worlds, {findings.requests:,} requests, "
        f"{findings.answered:,} answered in full, {seconds:.0f} s: "
        f"{kinds['leaked']} leaked, {kinds['wrong']} wrong, {kinds['hangs']} hangs",
        soft_wrap=True,
    )
    if missing:
        console.print(f"never injected: {', '.join(missing)}; run more handoffs", style="yellow")
    return not findings.wrong and not missing


def main() -> int:
    """Run."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--handoffs", type=int, default=100_000, help="stop after that many (default: 100000)")
    parser.add_argument("--first-seed", type=int, default=0, help="worlds are numbered from here (default: 0)")
    parser.add_argument("--seed", type=int, help="replay this one world")
    parser.add_argument("--jobs", type=int, default=multiprocessing.cpu_count(), help="processes (default: one a core)")
    parser.add_argument("--mutants", action="store_true", help="break one rule at a time; each must be found")
    options = parser.parse_args()
    console = Console()
    started = time.monotonic()
    if options.mutants:
        return 0 if hunt(console) else 1
    if options.seed is not None:
        findings = explore(range(options.seed, options.seed + 1))
        report(findings, time.monotonic() - started, console)
        return 1 if findings.wrong else 0
    findings = fuzz(options.first_seed, options.handoffs, options.jobs, console)
    return 0 if report(findings, time.monotonic() - started, console) else 1


if __name__ == "__main__":
    sys.exit(main())
