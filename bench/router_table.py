"""Goodput of four ways of routing, in the simulator: ``python -m bench.router_table TRACES``.

Everything that is a matter of choice (how many workers have which role, from which length on prompts are split) is
chosen on the first half of a trace for each way, and what is shown is the second half, at the rate at which the best of
the three fixed ways still serves 90 % of the requests within the SLO.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.markdown import table
from bench.router_cells import FLEETS, TRACES, Fleet, Shape, Trace, halves, slo
from twinfer.core.traces import TraceRequest, faster, read_trace
from twinfer.simulator.run import simulate

ATTAINED = 0.9
MAX_RATE = 4096.0
STEPS = 3
"""Halvings of the interval in which a rate is looked for."""
THRESHOLDS = (512, 2048)
FIXED = ("aggregated", "disaggregated", "threshold")


@dataclass(frozen=True, slots=True)
class Way:
    """A way of routing, with its choices made."""

    policy: str
    shape: Shape
    routing: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Cell:
    """A trace on a fleet."""

    fleet: Fleet
    trace: Trace
    first: Sequence[TraceRequest]
    second: Sequence[TraceRequest]

    def attained(self, way: Way, requests: Sequence[TraceRequest], rate: float) -> float:
        """Share of the requests within the SLO, at so many per second."""
        goals = slo(self.fleet, self.trace)
        routing = {
            "policy": way.policy,
            "ttft_goal_ms": self.trace.ttft_s * self.fleet.ttft_share * 1e3,
            "tpot_goal_ms": self.fleet.tpot_s * 1e3,
            **way.routing,
        }
        recorder = simulate(self.fleet.scenario(way.shape, routing), faster(requests, rate))
        return sum(map(goals.holds, recorder.journeys)) / len(recorder.journeys)

    def ways(self, policy: str) -> list[Way]:
        """All choices for a policy."""
        fleet = self.fleet
        if policy == "aggregated":
            return [Way(policy, fleet.whole, {})]
        if policy == "cost":
            return [Way(policy, shape, {}) for shape in (fleet.whole, *fleet.shapes)]
        if policy == "disaggregated":
            return [Way(policy, shape, {}) for shape in fleet.shapes]
        lengths = [max(16, tokens // fleet.shrink) for tokens in THRESHOLDS]
        return [Way(policy, shape, {"min_remote_tokens": length}) for shape in fleet.shapes for length in lengths]


def highest_rate(attained: Callable[[float], float], start: float) -> float:
    """Requests per second up to which at least 90 % are within the SLO, from a guess on."""
    low = high = start
    if attained(start) >= ATTAINED:
        while high < MAX_RATE and attained(high := high * 2) >= ATTAINED:
            low = high
    else:
        while low > 1 / MAX_RATE and attained(low := low / 2) < ATTAINED:
            high = low
    for _ in range(STEPS):
        middle = (low * high) ** 0.5
        low, high = (middle, high) if attained(middle) >= ATTAINED else (low, middle)
    return low


def strongest(cell: Cell, ways: Sequence[Way], rate: float) -> tuple[Way, float]:
    """The way that serves most on the first half, and how much; ways that do not keep up are not looked at twice."""
    best = max(ways, key=lambda way: cell.attained(way, cell.first, rate))
    most = highest_rate(lambda at: cell.attained(best, cell.first, at), rate)
    for way in ways:
        if way != best and cell.attained(way, cell.first, most) > max(ATTAINED, cell.attained(best, cell.first, most)):
            best, most = way, highest_rate(lambda at, way=way: cell.attained(way, cell.first, at), most)  # type: ignore[misc]
    return best, most


def compare(cell: Cell, start: float) -> dict[str, object]:
    """One row of the table."""
    rate, best = start, dict[str, Way]()
    for policy in FIXED:
        best[policy], found = strongest(cell, cell.ways(policy), rate)
        rate = found if policy == "aggregated" else max(rate, found)
    best["cost"] = max(cell.ways("cost"), key=lambda way: cell.attained(way, cell.first, rate))
    shown = {policy: cell.attained(best[policy], cell.second, rate) for policy in FIXED}
    rate = max(
        highest_rate(lambda at, way=best[policy]: cell.attained(way, cell.second, at), rate)  # type: ignore[misc]
        for policy in FIXED
        if shown[policy] >= min(ATTAINED, max(shown.values()))
    )
    row: dict[str, object] = {"fleet": cell.fleet.name, "trace": cell.trace.name, "rate": rate}
    for policy, way in best.items():
        row[policy] = rate * cell.attained(way, cell.second, rate)
        row[f"{policy} shape"] = [*way.shape, *way.routing.values()]
    return row


def page(rows: Sequence[Mapping[str, object]]) -> str:
    """All rows as Markdown."""
    head = (
        "fleet",
        "trace",
        ">requests/s",
        ">aggregated",
        ">disaggregated",
        ">threshold",
        ">router",
        ">to the best fixed",
    )
    lines = []
    for row in rows:
        values = [float(str(row[policy])) for policy in (*FIXED, "cost")]
        gain = values[3] / max(max(values[:3]), 1e-9) - 1
        figures = [f"{float(str(row['rate'])):.3g}", *(f"{value:.3g}" for value in values), f"{gain:+.1%}"]
        lines.append((str(row["fleet"]), str(row["trace"]), *figures))
    return "\n".join(table(head, lines))


def main() -> int:
    """Compute the cells that are asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("traces", type=Path, help="directory of the traces")
    parser.add_argument("--cells", nargs="*", default=[f"{f}:{t}" for f in FLEETS for t in TRACES])
    parser.add_argument("--requests", type=int, default=1000, help="of either half of a trace")
    parser.add_argument("--json", type=Path, help="write the rows here, and begin with those that are there")
    arguments = parser.parse_args()
    rows = json.loads(arguments.json.read_text()) if arguments.json and arguments.json.exists() else []
    for name in arguments.cells:
        fleet, trace = FLEETS[name.split(":")[0]], TRACES[name.split(":")[1]]
        began = time.perf_counter()
        pieces = halves(read_trace(arguments.traces / trace.file), arguments.requests, fleet.shrink)
        rows.append(compare(Cell(fleet, trace, *pieces), start=8.0))
        print(f"{name}: {time.perf_counter() - began:.0f} s", rows[-1], file=sys.stderr, flush=True)
        if arguments.json:
            arguments.json.write_text(json.dumps(rows, indent=1) + "\n")
    print(page(rows))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
