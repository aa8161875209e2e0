"""What simulating costs: seconds and memory by requests and by workers, each in a process of its own.

python tools/simulate_curve.py shared/traces/mooncake_fast25_conversation.jsonl
python tools/simulate_curve.py TRACE --requests 1000 4000 --workers 2 1000 --prefill h100 --decode h100
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from pathlib import Path

from twinfer.cli.emulation import simulated_pair
from twinfer.core.capabilities import Role
from twinfer.core.config_text import dump_config, parse_config
from twinfer.core.traces import read_trace
from twinfer.simulator.hardware import hardware
from twinfer.simulator.run import simulate
from twinfer.simulator.scenario import Scenario

KIB_PER_MIB = 1024


def one(arguments: argparse.Namespace, requests: int, workers: int) -> dict[str, float]:
    """Simulate so many requests on so many workers, half of each kind."""
    pair = dump_config(simulated_pair(arguments.prefill, arguments.decode, arguments.model_shape))
    config = parse_config(pair, [f"pool.{role.value}.workers={workers // 2}" for role in (Role.PREFILL, Role.DECODE)])
    parts = {pool.name: hardware(config.model[0], pool, Path("nowhere"), {}) for pool in config.pool}
    trace = read_trace(Path(arguments.trace), requests)
    began = time.process_time()
    recorder = simulate(Scenario(config, parts), trace)
    seconds = time.process_time() - began
    served = sum(journey.outcome == "ok" for journey in recorder.journeys)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / KIB_PER_MIB
    return {"requests": len(trace), "workers": workers, "seconds": seconds, "mib": memory, "served": served}


def main() -> int:
    """Print a row for each combination."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("trace")
    parser.add_argument("--requests", type=int, nargs="+", default=[1500, 3000, 6000, 12031])
    parser.add_argument("--workers", type=int, nargs="+", default=[2, 10, 100, 1000])
    parser.add_argument("--prefill", default="trn3")
    parser.add_argument("--decode", default="cs3")
    parser.add_argument("--model-shape", default="gpt-oss-120b")
    parser.add_argument("--alone", action="store_true", help="simulate the one combination given, and print JSON")
    arguments = parser.parse_args()
    if arguments.alone:
        print(json.dumps(one(arguments, arguments.requests[0], arguments.workers[0])))
        return 0
    print("| requests | workers | seconds | ms per request | MiB | served |\n|---:|---:|---:|---:|---:|---:|")
    devices = ["--prefill", arguments.prefill, "--decode", arguments.decode, "--model-shape", arguments.model_shape]
    for workers in arguments.workers:
        for requests in arguments.requests:
            combination = ["--requests", str(requests), "--workers", str(workers), "--alone"]
            command = [sys.executable, __file__, arguments.trace, *devices, *combination]
            row = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
            each = 1e3 * row["seconds"] / row["requests"]
            counts = f"| {row['requests']:,} | {workers:,} |"
            print(f"{counts} {row['seconds']:.1f} | {each:.2f} | {row['mib']:.0f} | {row['served']:,} |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
