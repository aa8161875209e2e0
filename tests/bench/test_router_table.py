"""How the table of ways of routing finds its rates and its pieces of traces."""

import pytest
from bench.router_cells import FLEETS, TRACES, halves
from bench.router_table import FIXED, Cell, highest_rate, page

from twinfer.core.traces import TraceRequest

REQUESTS = [TraceRequest(0.5 * n, 8000, 20, (n,), 8000) for n in range(120)]


@pytest.mark.parametrize("start", [0.5, 4.0, 60.0])
def test_a_rate_is_found_from_any_guess(start: float) -> None:
    """From below, and no further than a search in steps may be."""
    found = highest_rate(lambda rate: rate <= 10.0, start)
    assert 10.0 / 1.06 <= found <= 10.0


def test_halves_come_one_per_second() -> None:
    """Each from 0 on, and shorter by the fleet's factor."""
    first, second = halves(REQUESTS, 50, 4)
    assert [(50, 0.0, 2000, 5)] * 2 == [
        (len(h), h[0].arrival_s, h[0].input_tokens, h[0].output_tokens) for h in (first, second)
    ]
    assert abs(first[-1].arrival_s - 50) < 1e-9


def test_a_lost_simulation_says_less_than_was_asked_for() -> None:
    """One that is not says what it would have said."""
    cell = Cell(FLEETS["xeon"], TRACES["conv"], *halves(REQUESTS, 60, 4))
    way = cell.ways("aggregated")[0]
    easy, hard = (cell.attained(way, cell.first, rate) for rate in (0.2, 1000.0))
    assert (1.0, True) == (easy, hard < 0.9)
    assert (1.0, True) == (cell.attained(way, cell.first, 0.2, 0.9), cell.attained(way, cell.first, 1000.0, 0.9) < 0.9)


def test_a_simulation_is_not_run_twice() -> None:
    """What is known of a way at a rate is known of that half, of that way and of that rate only."""
    cell = Cell(FLEETS["xeon"], TRACES["conv"], *halves(REQUESTS, 60, 4))
    way, other = cell.ways("threshold")[:2]
    shares = [cell.attained(way, cell.first, rate) for rate in (0.2, 3.0, 3.0, 0.2)]
    assert shares[:2] == shares[:1:-1]
    assert shares[0] != shares[1]
    simulations = [(way, cell.second, 0.2), (other, cell.first, 0.2)]
    assert [3, 4] == [len(cell._known) for one in simulations if cell.attained(*one) >= 0.0]


def test_a_rate_is_looked_for_with_each_fixed_policy() -> None:
    """With its best choice on the first half, and with the best of these first."""
    cell = Cell(FLEETS["xeon"], TRACES["conv"], *halves(REQUESTS, 60, 4))
    found = cell.best_fixed(1.0)
    shares = [cell.attained(way, cell.first, 1.0) for way in found]
    assert (sorted(FIXED), sorted(shares, reverse=True)) == (sorted(way.policy for way in found), shares)
    best = {way.policy: max(cell.attained(other, cell.first, 1.0) for other in cell.ways(way.policy)) for way in found}
    assert shares == [best[way.policy] for way in found]


def test_a_row_says_what_was_asked_for_and_compares_with_the_best() -> None:
    """Goals, pieces and rate; the router against the best of the fixed ways."""
    row = {"fleet": "f", "trace": "t", "ttft_s": 2.0, "tpot_s": 0.03, "requests": 1200, "seconds": 60.2, "rate": 20.0}
    row |= {"aggregated": 10.0, "disaggregated": 16.0, "threshold": 18.0, "cost": 19.8}
    assert "| f | t | 2 s, 30 ms | 1,200 (60 s) | 20 | 10 | 16 | 18 | 19.8 | +10.0% |" == page([row]).splitlines()[-1]
