"""The same requests through a deployment on this machine in real time, and through the simulator.

python -m bench.simulator_check emulated --traces DIRECTORY --write
python -m bench.simulator_check emulated --traces DIRECTORY --time-scale 3 --repetitions 1
python -m bench.simulator_check native --traces DIRECTORY --write

What neither devices nor links take is fitted on one workload, and tried on another, which the fit has not seen. With
``--write`` what was found is kept, and docs/validation.md shows it.
"""

import argparse
import os
import sys
import tempfile
from pathlib import Path

from bench.simulator_check.cases import CASES, Case, letter
from bench.simulator_check.compare import rows
from bench.simulator_check.fit import Parameters, distance, fitted
from bench.simulator_check.result import Result, shown, write
from bench.simulator_check.stack import Stack
from twinfer.cli.measure_device import processor


def main(arguments: list[str]) -> int:
    """Exit code 1 where a bar is missed."""
    options = _parsed(arguments)
    case = CASES[options.kind](options)
    with tempfile.TemporaryDirectory() as scratch:
        cache_dir = Path(options.cache_dir or scratch)
        case.prepare(cache_dir)
        result = check(case, Stack(case.config, cache_dir, letter()), options)
    print("\n".join(shown(result)))
    if options.write:
        from bench.simulator_check.pages import refresh

        write(result)
        refresh()
    return 0 if result.kept else 1


def check(case: Case, stack: Stack, options: argparse.Namespace) -> Result:
    """Measure, fit, simulate, compare."""
    busy = [os.getloadavg()[0]]
    traces, (fit_on, try_on) = Path(options.traces), case.workloads
    served, *repetitions = stack.measured([fit_on, *[try_on] * options.repetitions], traces)
    busy.append(os.getloadavg()[0])
    found = fitted(case.names, lambda tried: distance(served, stack.simulated(served, tried)), Parameters())
    print(f"{found}: {distance(served, stack.simulated(served, found)):.2%} from the workload they were fitted on")
    compared = [(one, stack.simulated(one, found)) for one in repetitions]
    return Result(
        kind=options.kind,
        command=f"python -m bench.simulator_check {' '.join(case.said)}",
        where=f"{processor()}, {len(os.sched_getaffinity(0))} cores; load {busy[0]:.1f} before and {busy[1]:.1f} after",
        what=case.what,
        fitted_on=str(fit_on),
        tried_on=str(try_on),
        repetitions=options.repetitions,
        parameters={name: getattr(found, name) for name in case.names},
        rows=tuple(rows(compared, case.bars)),
    )


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
    parser.add_argument("--write", action="store_true", help="keep what is found, for docs/validation.md")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
