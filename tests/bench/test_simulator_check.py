"""The comparison of the simulator with deployments: workloads, fits, and what is said of them."""

from pathlib import Path

import pytest
from bench.simulator_check.compare import Bars, Row, rows
from bench.simulator_check.fit import OVERHEADS, Parameters, distance, fitted
from bench.simulator_check.replay import Served
from bench.simulator_check.result import Result, read, section, write
from bench.simulator_check.rounds import Rounds, measure, middle
from bench.simulator_check.stack import Stack
from bench.simulator_check.workload import Asked, Workload, filled, prompt, scaled

from tests.simulator.small import a_config, a_request
from twinfer.simulator.recorder import Journey

STACK = Stack(a_config(block_tokens=64), Path("nowhere"), 0)
ASKED = [Served(0.3 * n, 100 + 37 * n % 300, 5 + n % 7, 0.0, 0.0) for n in range(6)]
BARS = Bars(0.05, 0.15)


def as_served(journeys: list[Journey]) -> list[Served]:
    """What a client would have measured, had the simulation been real."""
    return [
        Served(one.arrived, one.prompt_tokens, one.num_tokens, one.first_token or 0.0, one.last_token or 0.0)
        for one in journeys
    ]


def test_a_workload_is_a_stretch_of_a_trace() -> None:
    """As many requests, in the time, in the proportions of the trace, and within the bounds."""
    workload = Workload("t", 1, 3, 10.0, (0.5, 2.0), shortest=60, longest=200, longest_answer=30)
    found = scaled([a_request(4.0, 100, 9), a_request(5.0, 300, 1), a_request(8.0, 9000, 99)], workload)
    assert [(0.0, 60, 18), (2.5, 150, 4), (10.0, 200, 30)] == [(one.at_s, one.words, one.tokens) for one in found]


def test_a_workload_is_as_many_requests_as_fill_a_worker() -> None:
    """In the same time, whatever number it began with; never more or fewer than make sense."""
    found = [filled(Workload("t", 1, few, 10.0), lambda one: one.requests / 400, 0.5) for few in (30, 190, 500)]
    assert [(200, 10.0)] * 3 == [(one.requests, one.seconds) for one in found]
    assert 20 == filled(Workload("t", 1, 100, 10.0), lambda one: 5.0, 0.5).requests
    busy = [STACK.busy([Asked(0.5 * n, 100, 9) for n in range(count)], 10.0) for count in (5, 20)]
    assert 0.0 < 3 * busy[0] < busy[1] < 1.0


def test_prompts_begin_unlike() -> None:
    """Not even the first dozen words of two requests are the same."""
    asked = scaled([a_request(0.0, 100, 5)], Workload("t", 1, 1, 1.0))[0]
    prompts = [prompt(asked, number, seed) for number in range(40) for seed in range(3)]
    assert len(prompts) == len({" ".join(text.split()[:12]) for text in prompts})
    assert {100} == {len(text.split()) for text in prompts}


def test_a_fit_finds_what_was_there() -> None:
    """Overheads of a simulation, from what its clients saw, up to what they cannot tell apart."""
    true = Parameters(message_us=900.0, step_us=20.0, gateway_us=7000.0)
    served = as_served(STACK.simulated(ASKED, true))

    def loss(tried: Parameters) -> float:
        return distance(served, STACK.simulated(served, tried))

    assert 0.0 == pytest.approx(loss(true), abs=1e-9)
    found = fitted(OVERHEADS, loss, Parameters())
    assert loss(found) < min(0.003, loss(Parameters()))


def test_rows_are_medians_of_repetitions() -> None:
    """And an error is kept or missed by the bar of its percentile."""
    journey = Journey(0, 0.0, 9, 5, first_token=1.1, last_token=1.5, num_tokens=5)
    served = [[Served(0.0, 9, 5, first, first + 0.4)] for first in (1.0, 2.0, 1.05)]
    found = rows([(one, [journey]) for one in served], BARS)
    assert ["TTFT p50", "TTFT p99", "TPOT p50", "TPOT p99"] == [row.what for row in found]
    assert (1.05, 1.1, 1.0) == (found[0].measured, found[0].simulated, found[0].spread)
    assert [True, True, True, True] == [row.kept for row in found]
    assert not Row("TTFT p50", 1.0, 1.06, 0.0, 0.05).kept


def probe_of(ttft_s: float, tpot_s: float) -> list[Served]:
    """Five requests, one of which took far longer."""
    times = [(ttft_s * (1 + 20 * (n == 3)), tpot_s) for n in range(5)]
    return [Served(n, 100, 11, n + first, n + first + 10 * each) for n, (first, each) in enumerate(times)]


def test_repetitions_on_a_machine_that_changed_are_measured_again() -> None:
    """Each between two probes, the later of which is the next one's earlier; as often as is allowed."""
    probes = [probe_of(0.1 * by, 0.01) for by in (1.0, 1.02, 1.2, 1.21, 1.2)]
    waiting, repeated = iter(probes), list[list[Served]]()

    def tried() -> list[Served]:
        repeated.append([])
        return repeated[-1]

    found = measure(lambda: next(waiting), tried, 3, 4, 0.05)
    assert [0.02, 0.18, 0.01, 0.01] == [round(one.drift, 2) for one in found]
    rounds = Rounds("somewhere", 3, 0.05, found)
    assert ([found[0], *found[2:]], None) == (rounds.steady, rounds.objection)
    assert "at most 2.0%; 1 repetitions with more than 5% were measured again." in str(rounds)
    waiting = iter(probes)
    few = Rounds("somewhere", 3, 0.05, measure(lambda: next(waiting), tried, 3, 3, 0.05))
    assert few.objection is not None
    assert few.objection.startswith("INVALID: 2 of 3 repetitions count and 3 are needed")
    assert "2.0%, 17.6%, 0.8%" in few.objection


def test_the_middle_of_probes() -> None:
    """The median of each request's times, not those of one probe."""
    found = middle([probe_of(0.1, 0.03), probe_of(0.3, 0.01), probe_of(0.2, 0.02)])
    assert [0.2, 0.2, 0.2, 4.2, 0.2] == pytest.approx([one.ttft_s for one in found])
    assert [0.02] * 5 == pytest.approx([one.tpot_s for one in found])


def test_what_was_found_is_kept_and_told(tmp_path: Path) -> None:
    """A file for each kind, and a part of the page that names a missed bar."""
    row = Row("TTFT p50", 0.5, 0.6, 0.02, 0.05)
    result = Result(
        "emulated", "command", "somewhere", "a pair", "a", "b", 3, {"step_us": 12.0}, (row,), "It was quiet."
    )
    write(result, tmp_path)
    assert [result] == read(tmp_path)
    lines = section([result])
    assert "| TTFT p50 | 500 ms | 600 ms | +20.0% | 5% | **missed** | 2.0% |" in lines
    assert "### Against the native engine" == lines[-3]
    assert lines[-1].startswith("Not measured yet")
    assert "- Fitted on a: `step_us` 12." in lines
    assert "- Tried on b; medians of 3 repetitions. It was quiet." in lines
