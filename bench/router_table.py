"""Goodput of four ways of routing, in the simulator: ``python -m bench.router_table TRACES``.

Everything that is a matter of choice (how many workers have which role, from which length on prompts are split) is
chosen on the first half of a trace for each way, and what is shown is the second half, at the rate at which the best of
the three fixed ways still serves 90 % of the requests within the SLO.

1. On the first half: the best choice of each fixed way at a rate from a closed form, the highest rate that one of these
   serves, and at that rate the best choice of each way.
2. On the second half: the highest rate that any of these fixed ways serves, and what each way serves at that rate.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import msgspec

from bench.markdown import table
from bench.router_cells import FLEETS, TRACES, Fleet, Shape, Trace, halves, slo
from bench.router_misses import Misses
from bench.router_rate import enough, usual_rate
from twinfer.core.traces import TraceRequest, faster, read_trace
from twinfer.simulator.run import simulate
from twinfer.simulator.scenario import Scenario

ATTAINED = 0.9
MAX_RATE = 4096.0
RISE = 1.25
"""From one guess at a rate to the next one."""
BETTER = 1.02
"""A way that serves no more than so many times the rate of another one is not looked at more closely."""
STEPS = 2
"""Halvings of the interval in which a rate is looked for."""
THRESHOLDS = (512, 2048)
MANY = 10_000
"""Requests of a piece at most; it has as many as make sense where those are fewer (``bench/router_rate.py``)."""
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
    _scenarios: dict[Shape, Scenario] = field(default_factory=dict)
    _known: dict[tuple[str, bool, float], float] = field(default_factory=dict)

    def attained(self, way: Way, requests: Sequence[TraceRequest], rate: float, least: float = 0.0) -> float:
        """Share of the requests within the SLO, at so many per second; less than that where it is below ``least``."""
        asked = str(way), requests is self.first, rate
        if asked in self._known:
            return self._known[asked]
        goals = slo(self.fleet, self.trace)
        misses = Misses(goals, at_most=(1.0 - least) * len(requests) + 1e-6)
        recorder = simulate(self._scenario(way), faster(requests, rate), enough=misses.too_many)
        share = sum(map(goals.holds, recorder.journeys)) / len(requests)
        is_whole = len(recorder.journeys) == len(requests)
        if is_whole:
            self._known[asked] = share
        said = f"{share:.1%}" if is_whole else f"below {least:.1%}"
        print(f"{way.policy} {way.shape} {dict(way.routing)} {rate:.3g}/s: {said}", file=sys.stderr, flush=True)
        return share

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

    def best(self, ways: Iterable[Way], rate: float) -> Way:
        """The way that serves most of the first half at a rate."""
        found, most = None, -1.0
        for way in ways:
            attained = self.attained(way, self.first, rate, max(most, 0.0))
            if attained > most:
                found, most = way, attained
        assert found is not None
        return found

    def best_fixed(self, rate: float) -> list[Way]:
        """Of each fixed policy the way that serves most of the first half at a rate; of these the best one first."""
        return sorted(
            (self.best(self.ways(policy), rate) for policy in FIXED),
            key=lambda way: -self.attained(way, self.first, rate),
        )

    def highest_rate(self, ways: Sequence[Way], requests: Sequence[TraceRequest], start: float) -> float:
        """Requests per second that the best of some ways serves; those that serve less are not looked at twice."""
        low = 0.0
        for way in ways:

            def serves(rate: float, way: Way = way) -> bool:
                return self.attained(way, requests, rate, ATTAINED) >= ATTAINED

            if not low or serves(low * BETTER):
                low = highest_rate(serves, low * BETTER or start)
        return low

    def _scenario(self, way: Way) -> Scenario:
        if way.shape not in self._scenarios:
            self._scenarios[way.shape] = self.fleet.scenario(way.shape, {})
        scenario = self._scenarios[way.shape]
        goals = slo(self.fleet, self.trace)
        assert goals.ttft_s is not None
        assert goals.tpot_s is not None
        aims = {"ttft_goal_ms": goals.ttft_s * 1e3, "tpot_goal_ms": goals.tpot_s * 1e3}
        routing = msgspec.structs.replace(scenario.config.routing, policy=way.policy, **aims, **way.routing)
        return replace(scenario, config=msgspec.structs.replace(scenario.config, routing=routing))


def highest_rate(serves: Callable[[float], bool], start: float) -> float:
    """Requests per second up to which something is served, from a guess on."""
    low = high = start
    if serves(start):
        while high < MAX_RATE and serves(high := high * RISE):
            low = high
    else:
        while low > 1 / MAX_RATE and not serves(low := low / RISE):
            high = low
    for _ in range(STEPS):
        middle = (low * high) ** 0.5
        low, high = (middle, high) if serves(middle) else (low, middle)
    return low


def fixed_ways(cell: Cell, start: float) -> dict[str, Any]:
    """One row of the table, but for the router: rates on both halves, and goodput of each fixed way on the second."""
    first = cell.highest_rate(cell.best_fixed(start), cell.first, start)
    best = cell.best_fixed(first)
    rate = cell.highest_rate(best, cell.second, first)
    row: dict[str, Any] = {"fleet": cell.fleet.name, "trace": cell.trace.name, "first rate": first, "rate": rate}
    goals = slo(cell.fleet, cell.trace)
    row |= {"requests": len(cell.second), "seconds": cell.second[-1].arrival_s / rate}
    row |= {"ttft_s": goals.ttft_s, "tpot_s": goals.tpot_s}
    for way in best:
        row |= goodput(cell, way, rate)
    return row


def goodput(cell: Cell, way: Way, rate: float) -> dict[str, Any]:
    """What a way serves of the second half, and the choices made for it."""
    served = rate * cell.attained(way, cell.second, rate)
    return {way.policy: served, f"{way.policy} shape": [*way.shape, *way.routing.values()]}


def page(rows: Iterable[Mapping[str, Any]]) -> str:
    """All rows as Markdown."""
    head = (
        "fleet",
        "trace",
        ">within",
        ">pieces",
        ">rate",
        ">aggregated",
        ">disaggregated",
        ">threshold",
        ">router",
        ">to the best fixed",
    )
    lines = []
    for row in (row for row in rows if "cost" in row):
        values = [row[policy] for policy in (*FIXED, "cost")]
        gain = values[3] / max(max(values[:3]), 1e-9) - 1
        goals = f"{row['ttft_s']:g} s, {row['tpot_s'] * 1e3:g} ms"
        piece = f"{row['requests']:,} ({row['seconds']:.0f} s)"
        figures = [goals, piece, *(f"{value:.3g}" for value in (row["rate"], *values)), f"{gain:+.1%}"]
        lines.append((row["fleet"], row["trace"], *figures))
    return "\n".join(table(head, lines))


def main() -> int:
    """Compute the cells that are asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("traces", type=Path, help="directory of the traces")
    parser.add_argument("--cells", nargs="*", default=[f"{f}:{t}" for f in FLEETS for t in TRACES])
    parser.add_argument("--requests", type=int, default=MANY, help="of either half of a trace at most")
    parser.add_argument("--divide", type=int, default=1, help="so many times fewer workers of each role")
    parser.add_argument("--json", type=Path, help="write the rows here, and keep those of other cells that are there")
    parser.add_argument("--again", action="store_true", help="take what fixed ways do from --json where it is there")
    arguments = parser.parse_args()
    there = arguments.json is not None and arguments.json.exists()
    rows: dict[str, dict[str, Any]] = json.loads(arguments.json.read_text()) if there else {}
    for name in arguments.cells:
        began = time.perf_counter()
        cell, start = cell_of(name, arguments.traces, arguments.requests, arguments.divide)
        row = rows[name] if arguments.again and name in rows else fixed_ways(cell, start)
        best = cell.best(cell.ways("cost"), row["first rate"])
        rows[name] = row | goodput(cell, best, row["rate"])
        print(f"{name}: {time.perf_counter() - began:.0f} s", rows[name], file=sys.stderr, flush=True)
        if arguments.json:
            arguments.json.write_text(json.dumps(rows, indent=1) + "\n")
    print(page(rows.values()))
    return 0


def cell_of(name: str, traces: Path, most: int, divide: int) -> tuple[Cell, float]:
    """A cell with pieces of its trace that are long enough, half as long to choose on, and a guess at its rate."""
    fleet, trace = FLEETS[name.split(":")[0]].part(divide), TRACES[name.split(":")[1]]
    requests = read_trace(traces / trace.file)
    whole = [one for half in halves(requests, len(requests), fleet.shrink) for one in half]
    first, second = halves(requests, min(most, enough(fleet, whole)), fleet.shrink)
    return Cell(fleet, trace, first[: len(first) // 2], second), usual_rate(fleet, whole)


if __name__ == "__main__":
    raise SystemExit(main())
