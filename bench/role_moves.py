"""Goodput when the load turns from prompts to answers, roles fixed and moving: ``python -m bench.role_moves``.

The first half of the made load is like Azure's code trace (long prompts, short answers), the second like reasoning
(short prompts, long answers). For each half fixed ratios are simulated on that half alone; the best of them knows
what comes. The elastic fleet sees both halves in one run, from half and half on, and from the best ratio of the first
half on. Either half comes at a constant share of the highest rate at which the best fixed ratio serves 90 % well:
``--find-rates`` looks for that rate. At the rate itself nothing would be left for what waited while roles moved.
"""

import argparse
import dataclasses
import random
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import msgspec

from bench.markdown import table
from bench.router_cells import FLEETS, Fleet
from twinfer.core.traces import TraceRequest
from twinfer.simulator.recorder import Journey, Recorder
from twinfer.simulator.run import simulate
from twinfer.simulator.scenario import Scenario
from twinfer.simulator.summary import Slo

SPREAD = 0.6
"""Of the logarithms of lengths."""
ATTAINED = 0.9
"""Share of the requests that the best fixed ratio serves well at the highest rate that it bears."""
COMES = 0.85
"""Part of that rate that comes."""
REFUSED = frozenset({"rejected", "no capacity"})
"""Outcomes that a client hears as 503."""
REACH, PRECISION = 1.1, 1.05
"""By how much rates are changed while they are looked for, at most, and how closely they are found."""
LOOK_EVERY = 500
"""Requests between two looks whether a simulation is still of use."""
WELL_S = 120.0
"""Rates are looked for with halves of that length and seed 0. Those below were borne, and 5 % more were not, or 10 % by
the answers on H100; the search begins there."""
WAYS = ">best ratio", ">well", ">well when moving", ">to it"
HEADS = "fleet", ">seed", ">from", *WAYS, *WAYS, ">moves", ">longest", ">refused", ">lost"


@dataclass(frozen=True, slots=True)
class Half:
    """What comes in one half: requests per second, and the medians of their lengths in tokens."""

    rate: float
    prompt_tokens: int
    answer_tokens: int

    def requests(self, seconds: float, seed: int, start: float = 0.0, first: int = 0) -> list[TraceRequest]:
        """So many seconds of it; requests are numbered from ``first`` on, so that no two prompts have a common part."""
        drawn, now = random.Random(f"{seed} {first}"), start
        found: list[TraceRequest] = []
        while (now := now + drawn.expovariate(self.rate)) < start + seconds:
            prompt, answer = (
                max(2, round(median * drawn.lognormvariate(0.0, SPREAD)))
                for median in (self.prompt_tokens, self.answer_tokens)
            )
            found.append(TraceRequest(now, prompt, answer, (first + len(found),), prompt))
        return found


@dataclass(frozen=True, slots=True)
class Case:
    """A fleet of one kind of device, what comes, and what is good enough.

    Attributes:
        edges: either half at the highest rate that the best fixed ratio bears.
    """

    fleet: Fleet
    workers: int
    edges: tuple[Half, Half]
    slo: Slo

    @property
    def halves(self) -> tuple[Half, Half]:
        """What comes."""
        first, second = (dataclasses.replace(half, rate=half.rate * COMES) for half in self.edges)
        return first, second

    @property
    def ratios(self) -> range:
        """Numbers of workers that compute prompts, when the others generate answers."""
        return range(1, self.workers)

    def scenario(self, prefill: int, *, elastic: bool = False) -> Scenario:
        """So many workers of the fleet compute prompts, at first or for good."""
        assert self.slo.ttft_s is not None
        assert self.slo.tpot_s is not None
        goals = {"ttft_goal_ms": self.slo.ttft_s * 1e3, "tpot_goal_ms": self.slo.tpot_s * 1e3}
        shape = ((prefill, 0, self.workers - prefill),)
        scenario = self.fleet.scenario(shape, {"policy": "disaggregated", **goals})
        shaped = msgspec.structs.replace(scenario.config.elastic, enabled=elastic)
        return dataclasses.replace(scenario, config=msgspec.structs.replace(scenario.config, elastic=shaped))

    @property
    def likely(self) -> tuple[int, int]:
        """As many of them as should be best for either half."""
        return self.workers - 1, 1

    def within(self, journeys: Iterable[Journey]) -> int:
        """How many were served well."""
        return sum(map(self.slo.holds, journeys))


TRN3 = dataclasses.replace(FLEETS["wafers"], kinds=("trn3",), links={})
CASES = {
    "h100": Case(FLEETS["h100"], 4, (Half(22, 4000, 50), Half(22.6, 200, 1500)), Slo(2.0, 0.030)),
    "trn3": Case(TRN3, 8, (Half(35.5, 4000, 50), Half(108, 200, 600)), Slo(2.0, 0.030)),
}


def load(halves: Sequence[Half], half_s: float, seed: int) -> list[list[TraceRequest]]:
    """The requests of each half, one half beginning where the one before ends."""
    found: list[list[TraceRequest]] = []
    for half in halves:
        found.append(half.requests(half_s, seed, len(found) * half_s, sum(map(len, found))))
    return found


def served(case: Case, scenario: Scenario, requests: Sequence[TraceRequest], least: int = 0) -> int:
    """How many of these requests are served well; any number below ``least`` if fewer are."""
    start = requests[0].arrival_s
    alone = [dataclasses.replace(one, arrival_s=one.arrival_s - start) for one in requests]
    spare = len(requests) - least
    recorder = simulate(scenario, alone, enough=_beyond(case.slo, spare) if least else None)
    return case.within(recorder.journeys)


def best(case: Case, requests: Sequence[TraceRequest], likely: int) -> tuple[int, int]:
    """The ratio that serves most well, by its prefill workers, and how many.

    It is looked for from the likely one on to either side, as long as the next one is better; not at all if that one
    serves everything well.
    """
    found, most = likely, served(case, case.scenario(likely), requests)
    print(f"  {likely} of {case.workers} for prompts: {most} of {len(requests)}", file=sys.stderr)
    for further in (range(likely - 1, 0, -1), range(likely + 1, case.workers)):
        for ratio in further:
            if most == len(requests) or (well := served(case, case.scenario(ratio), requests, most + 1)) <= most:
                break
            found, most = ratio, well
    return found, most


def find_rate(case: Case, half: Half, likely: int, half_s: float) -> tuple[float, int]:
    """The highest rate at which a ratio serves enough well, and its prefill workers, near those that are given."""
    low, rate, high = 0.0, half.rate, float("inf")
    while high > low * PRECISION:
        requests = dataclasses.replace(half, rate=rate).requests(half_s, 0)
        least = round(ATTAINED * len(requests))
        near = [likely, *({likely - 1, likely + 1} & set(case.ratios))]
        held = next((ratio for ratio in near if served(case, case.scenario(ratio), requests, least) >= least), None)
        print(f"  {rate:.1f}/s: held with {held} of {case.workers} workers for prompts", file=sys.stderr)
        low, high = (low, rate) if held is None else (rate, high)
        likely = held or likely
        rate = min(max((low * high) ** 0.5, high / REACH), low * REACH) if low else high / REACH
    return low, likely


@dataclass(frozen=True, slots=True)
class Moved:
    """A run in which roles moved: requests of each half that were served well, and all that happened."""

    well: tuple[int, ...]
    recorder: Recorder

    @property
    def took_s(self) -> list[float]:
        """How long each change of a role took; infinite if it did not end."""
        return [float("inf") if move.took_s is None else move.took_s for move in self.recorder.moves]

    @property
    def refused(self) -> int:
        """Requests that were told, before anything was generated for them, to come again later."""
        return sum(map(_is_refused, self.recorder.journeys))

    @property
    def lost(self) -> int:
        """All others without their whole answer: those that failed once they had begun, or were never answered."""
        return sum(one.outcome != "ok" and not _is_refused(one) for one in self.recorder.journeys)


def moving(case: Case, halves: Sequence[Sequence[TraceRequest]], prefill: int) -> Moved:
    """From so many prefill workers on."""
    recorder = simulate(case.scenario(prefill, elastic=True), [one for half in halves for one in half])
    found, begin = [], 0
    for half in halves:
        found.append(case.within(recorder.journeys[begin : begin + len(half)]))
        begin += len(half)
    return Moved(tuple(found), recorder)


def rows(name: str, seed: int, half_s: float, *, verbose: bool) -> list[tuple[str, ...]]:
    """Moving from half and half and from the best ratio of the first half on, as lines of a table."""
    case = CASES[name]
    halves = load(case.halves, half_s, seed)
    fixed = [best(case, half, likely) for half, likely in zip(halves, case.likely, strict=True)]
    found = []
    for prefill in (case.workers // 2, fixed[0][0]):
        run = moving(case, halves, prefill)
        _tell(run, verbose=verbose)
        figures = []
        for half, (ratio, most), well in zip(halves, fixed, run.well, strict=True):
            shares = f"{most / len(half):.1%}", f"{well / len(half):.1%}", f"{well / most - 1:+.1%}"
            figures += [f"{ratio}:{case.workers - ratio}", *shares]
        begin, longest = f"{prefill}:{case.workers - prefill}", f"{max(run.took_s, default=0.0):.2f} s"
        found.append((name, str(seed), begin, *figures, str(len(run.took_s)), longest, str(run.refused), str(run.lost)))
    return found


def main() -> int:
    """Compute what is asked for, and print it as a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--fleets", nargs="*", default=list(CASES), choices=list(CASES))
    parser.add_argument("--seeds", nargs="*", type=int, default=[0, 1, 2])
    parser.add_argument("--half-s", type=float, default=WELL_S, help="length of a half")
    parser.add_argument("--verbose", action="store_true", help="print moves too")
    parser.add_argument("--find-rates", action="store_true", help="look for the rates instead, from those here on")
    arguments = parser.parse_args()
    lines = []
    for name in arguments.fleets:
        if arguments.find_rates:
            for half, likely in zip(CASES[name].edges, CASES[name].likely, strict=True):
                rate, ratio = find_rate(CASES[name], half, likely, arguments.half_s)
                print(f"{name}: {rate:.1f}/s with {ratio} prefill workers of {CASES[name].workers}: {half}")
            continue
        for seed in arguments.seeds:
            began = time.perf_counter()
            lines += rows(name, seed, arguments.half_s, verbose=arguments.verbose)
            print(f"{name}, seed {seed}: {time.perf_counter() - began:.0f} s", file=sys.stderr)
    if lines:
        print("\n".join(table(HEADS, lines)))
    return 0


def _beyond(slo: Slo, spare: int) -> Callable[[Recorder, float], bool]:
    """Whether more than so many requests are not served well already, whatever else happens."""

    def enough(recorder: Recorder, now: float) -> bool:
        if len(recorder.journeys) % LOOK_EVERY:
            return False
        return sum(_is_late(slo, one, now) for one in recorder.journeys) > spare

    return enough


def _is_late(slo: Slo, one: Journey, now: float) -> bool:
    """Whether a request is not served well already, or cannot be any more."""
    assert slo.ttft_s is not None
    assert slo.tpot_s is not None
    if one.outcome:
        return not slo.holds(one)
    if one.first_token is None:
        return now - one.arrived > slo.ttft_s
    return one.first_token - one.arrived > slo.ttft_s or now - one.first_token > slo.tpot_s * one.output_tokens


def _is_refused(one: Journey) -> bool:
    return one.outcome in REFUSED and one.first_token is None


def _tell(run: Moved, *, verbose: bool) -> None:
    """What moved, how long that took, and how many requests were not answered."""
    moves, requests = run.recorder.moves, len(run.recorder.journeys)
    unanswered = f"{run.refused} of {requests} refused, {run.lost} lost"
    text = f"{len(moves)} moves of at most {max(run.took_s, default=0.0):.2f} s; {unanswered}"
    print(f"  {text}; {run.well} served well", file=sys.stderr)
    for move in moves if verbose else ():
        print(f"  {move.at_s:7.1f} s: {move.worker} to {move.role.value}: {move.reason}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
