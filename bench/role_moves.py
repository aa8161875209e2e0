"""Goodput when the load turns from prompts to answers, roles fixed and moving: ``python -m bench.role_moves``.

The first half of the made load is like Azure's code trace (long prompts, short answers), the second like reasoning
(short prompts, long answers). For each half all fixed ratios are simulated on that half alone; the best of them knows
what comes. The elastic fleet starts as half and half, and sees both halves in one run.
"""

import argparse
import dataclasses
import random
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from bench.markdown import table
from bench.router_cells import FLEETS, Fleet, Shape
from twinfer.core.traces import TraceRequest
from twinfer.simulator.recorder import Journey, Recorder
from twinfer.simulator.run import simulate
from twinfer.simulator.scenario import Scenario
from twinfer.simulator.summary import Slo

SPREAD = 0.6
"""Of the logarithms of lengths."""


@dataclass(frozen=True, slots=True)
class Half:
    """What comes in one half: requests per second, and the medians of their lengths in tokens."""

    rate: float
    prompt_tokens: int
    answer_tokens: int


@dataclass(frozen=True, slots=True)
class Case:
    """A fleet of one kind of device, what comes, and what is good enough."""

    fleet: Fleet
    workers: int
    halves: tuple[Half, Half]
    slo: Slo

    def scenario(self, prefill: int, *, elastic: bool = False) -> Scenario:
        """So many workers of the fleet compute prompts, at first or for good."""
        shape: Shape = ((prefill, 0, self.workers - prefill),)
        assert self.slo.ttft_s is not None
        assert self.slo.tpot_s is not None
        goals = {"ttft_goal_ms": self.slo.ttft_s * 1e3, "tpot_goal_ms": self.slo.tpot_s * 1e3}
        scenario = self.fleet.scenario(shape, {"policy": "disaggregated", **goals})
        shaped = msgspec.structs.replace(scenario.config.elastic, enabled=elastic)
        return dataclasses.replace(scenario, config=msgspec.structs.replace(scenario.config, elastic=shaped))

    def within(self, journeys: Sequence[Journey]) -> int:
        """How many were served well."""
        return sum(map(self.slo.holds, journeys))


TRN3 = dataclasses.replace(FLEETS["wafers"], kinds=("trn3",), links={})
CASES = {
    "h100": Case(FLEETS["h100"], 4, (Half(80, 1500, 25), Half(60, 150, 400)), Slo(2.0, 0.030)),
    "trn3": Case(TRN3, 4, (Half(45, 1500, 25), Half(45, 150, 400)), Slo(2.0, 0.030)),
}


def load(halves: Sequence[Half], half_s: float, seed: int) -> list[list[TraceRequest]]:
    """The requests of each half, one half beginning where the one before ends."""
    drawn, found, number = random.Random(seed), [], 0
    for index, half in enumerate(halves):
        requests, now = [], index * half_s
        while (now := now + drawn.expovariate(half.rate)) < (index + 1) * half_s:
            number += 1
            prompt, answer = (
                max(2, round(median * drawn.lognormvariate(0.0, SPREAD)))
                for median in (half.prompt_tokens, half.answer_tokens)
            )
            requests.append(TraceRequest(now, prompt, answer, (number,), prompt))
        found.append(requests)
    return found


def fixed(case: Case, requests: Sequence[TraceRequest]) -> dict[int, int]:
    """Requests served well for each number of prefill workers."""
    start = requests[0].arrival_s
    alone = [dataclasses.replace(one, arrival_s=one.arrival_s - start) for one in requests]
    return {
        prefill: case.within(simulate(case.scenario(prefill), alone).journeys) for prefill in range(1, case.workers)
    }


def moving(case: Case, halves: Sequence[Sequence[TraceRequest]]) -> tuple[list[int], Recorder]:
    """Requests of each half served well while roles move, and all that happened."""
    recorder = simulate(case.scenario(case.workers // 2, elastic=True), [one for half in halves for one in half])
    found, begin = [], 0
    for half in halves:
        found.append(case.within(recorder.journeys[begin : begin + len(half)]))
        begin += len(half)
    return found, recorder


def rows(name: str, seed: int, half_s: float, *, verbose: bool) -> list[tuple[str, ...]]:
    """Both halves as lines of a table."""
    case = CASES[name]
    halves = load(case.halves, half_s, seed)
    served, recorder = moving(case, halves)
    if verbose:
        for move in recorder.moves:
            print(f"  {move.at_s:7.1f} s: {move.worker} to {move.role.value}: {move.reason}", file=sys.stderr)
    found = []
    for index, (half, well) in enumerate(zip(halves, served, strict=True)):
        by_prefill = fixed(case, half)
        best = max(by_prefill, key=lambda prefill: by_prefill[prefill])
        moves = sum(index * half_s <= move.at_s < (index + 1) * half_s for move in recorder.moves)
        static = by_prefill[case.workers // 2]
        figures = [f"{count / half_s:.1f}" for count in (len(half), by_prefill[best], static, well)]
        label = ("prompts", "answers")[index]
        ratio = f"{best}:{case.workers - best}"
        found.append(
            (name, str(seed), label, figures[0], ratio, *figures[1:], f"{well / by_prefill[best] - 1:+.1%}", str(moves))
        )
        if verbose:
            print(f"  {label}: {by_prefill} of {len(half)}, elastic {well}", file=sys.stderr)
    return found


def main() -> int:
    """Compute what is asked for, and print it as a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--fleets", nargs="*", default=list(CASES), choices=list(CASES))
    parser.add_argument("--seeds", nargs="*", type=int, default=[0, 1, 2])
    parser.add_argument("--half-s", type=float, default=180.0, help="length of a half")
    parser.add_argument("--verbose", action="store_true", help="print moves and all ratios too")
    arguments = parser.parse_args()
    lines = []
    for name in arguments.fleets:
        for seed in arguments.seeds:
            began = time.perf_counter()
            lines += rows(name, seed, arguments.half_s, verbose=arguments.verbose)
            print(f"{name}, seed {seed}: {time.perf_counter() - began:.0f} s", file=sys.stderr)
    head = ("fleet", ">seed", "half", ">requests/s", ">best ratio", ">its goodput", ">half and half", ">moving")
    print("\n".join(table((*head, ">to the best", ">moves"), lines)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
