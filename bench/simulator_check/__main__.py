"""The same requests through a deployment on this machine in real time, and through the simulator.

python -m bench.simulator_check emulated --traces DIRECTORY --write      # 7 minutes, up to 11 on a machine that drifts
python -m bench.simulator_check native --traces DIRECTORY --write        # 5 minutes and the profile, up to 8
python -m bench.simulator_check emulated --traces DIRECTORY --time-scale 3 --repetitions 1
python -m bench.simulator_check emulated --traces DIRECTORY --measured FILE --write

What neither devices nor links take is fitted on one workload, and tried on another, which the fit has not seen. The
first is replayed before and after each repetition of the second: a repetition counts if the machine was the same before
and after it, else it is measured again. When too few count, that is said, and nothing is kept.

With ``--write`` what was found is kept, and docs/validation.md shows it. ``--measured`` keeps what was measured in a
file for a later call, which then measures nothing; ``native`` needs the same ``--cache-dir`` there, for the profile in
it.
"""

import argparse
import os
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import msgspec

from bench.simulator_check.cases import CASES, Case, letter
from bench.simulator_check.compare import rows
from bench.simulator_check.fit import Parameters, distance, fitted
from bench.simulator_check.result import Result, shown, write
from bench.simulator_check.rounds import Rounds, measure, middle
from bench.simulator_check.stack import Stack
from bench.simulator_check.workload import Workload, chosen, filled
from twinfer.cli.measure_device import processor

SPARE_ROUNDS = 2
"""Repetitions that may be measured again."""
MISSED, INVALID = 1, 3


def main(arguments: list[str]) -> int:
    """Exit code 1 where a bar is missed, 3 where the machine was not steady enough to say."""
    options = _parsed(arguments)
    case = CASES[options.kind](options)
    with tempfile.TemporaryDirectory() as scratch:
        cache_dir = Path(options.cache_dir or scratch)
        case.prepare(cache_dir)
        stack = Stack(case.config, cache_dir, letter())
        if case.load:
            case = replace(case, workloads=_filled(case, stack, Path(options.traces)))
        rounds = _measured(case, stack, options)
        if rounds.objection is not None:
            print(rounds.objection)
            return INVALID
        result = compare(case, stack, rounds)
    print("\n".join(shown(result)))
    if options.write:
        from bench.simulator_check.pages import refresh

        write(result)
        refresh()
    return 0 if result.kept else MISSED


def compare(case: Case, stack: Stack, rounds: Rounds) -> Result:
    """Fit on the probes around the repetitions that count, simulate these, compare."""
    steady = rounds.steady
    served = middle([probe for one in steady for probe in (one.before, one.after)])
    found = fitted(case.names, lambda tried: distance(served, stack.simulated(served, tried)), Parameters())
    print(f"{found}: {distance(served, stack.simulated(served, found)):.2%} from the workload they were fitted on")
    compared = [(one.tried, stack.simulated(one.tried, found)) for one in steady]
    fit_on, try_on = case.workloads
    return Result(
        kind=case.said[0],
        command=f"python -m bench.simulator_check {' '.join(case.said)}",
        where=rounds.where,
        what=case.what,
        fitted_on=str(fit_on),
        tried_on=str(try_on),
        repetitions=len(steady),
        parameters={name: getattr(found, name) for name in case.names},
        rows=tuple(rows(compared, case.bars)),
        steadiness=str(rounds),
    )


def _filled(case: Case, stack: Stack, traces: Path) -> tuple[Workload, Workload]:
    def busy(workload: Workload) -> float:
        return stack.busy(chosen(workload, traces), workload.seconds)

    fit_on, try_on = (filled(one, busy, case.load) for one in case.workloads)
    return fit_on, try_on


def _measured(case: Case, stack: Stack, options: argparse.Namespace) -> Rounds:
    """What an earlier call left, or what is measured now."""
    kept = Path(options.measured) if options.measured else None
    if kept is not None and kept.exists():
        return msgspec.json.decode(kept.read_bytes(), type=Rounds)
    probe, tried = (chosen(one, Path(options.traces)) for one in case.workloads)
    load = [os.getloadavg()[0]]
    with stack.serving() as ask:
        ask(probe[:2])  # streams between workers are dialled
        wanted = options.repetitions
        found = measure(lambda: ask(probe), lambda: ask(tried), wanted, wanted + SPARE_ROUNDS, case.steady)
    load.append(os.getloadavg()[0])
    where = f"{processor()}, {len(os.sched_getaffinity(0))} cores; load {load[0]:.1f} before and {load[1]:.1f} after"
    rounds = Rounds(where, wanted, case.steady, found)
    if kept is not None:
        kept.write_bytes(msgspec.json.encode(rounds))
    return rounds


def _parsed(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench.simulator_check",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("kind", choices=sorted(CASES), help="which engine serves")
    parser.add_argument("--traces", required=True, help="directory with the published traces")
    parser.add_argument("--repetitions", type=int, default=3, help="of the workload that is compared (default: 3)")
    parser.add_argument("--time-scale", type=float, default=10.0, help="of emulated devices and links (default: 10)")
    parser.add_argument("--model", default="demo", help="that is served natively: demo, or a directory (default: demo)")
    parser.add_argument("--cache-dir", help="for prepared weights and the profile of this machine (default: a new one)")
    parser.add_argument("--measured", metavar="FILE", help="of an earlier call, or to write what this one measures")
    parser.add_argument("--write", action="store_true", help="keep what is found, for docs/validation.md")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
