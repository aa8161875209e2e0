"""The pressure of a load, and what it would be on other numbers of workers."""

import dataclasses
from dataclasses import replace
from itertools import pairwise

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.router.test_elastic import CONFIG, GOALS, D, P, fleet, measured
from twinfer.core.cost import Backlog
from twinfer.router.pressure import LEAST_ROOM, Gauge, Pressure

A_LOAD = Pressure(prefill=1.5, decoders=2.0, idle=0.3, rows=0.3, held=0.3)


def test_without_costs():
    """What waits and is under way, over what is configured as much of each."""
    found = Gauge(CONFIG, GOALS).now(fleet([P, P, D], 100, 5))
    assert Pressure(2.0, 1.0, 0.0, 0.0, 0.5) == found
    assert (1.0, 0.5) == (found.on_prefill(2), found.on_decode(1))
    assert 0.25 == found.on_decode(2)


def test_with_costs():
    """Seconds of waiting and of a step, over their goals; full steps are what a position of a prompt takes."""
    found = Gauge(CONFIG, GOALS).now([measured(P, 0, 0, 0), measured(D, 1, 0, 40), measured(D, 2, 0, 60)])
    step_s = 0.005 + 50 * 1e-4 + 50_000 * 1e-7
    waits = 1000 * (1e-5 + 0.005 / 512)
    expected = Pressure(waits / 1.0, 2.0, 0.005 / 0.02, (step_s - 0.005) / 0.02, 0.25)
    assert pytest.approx(dataclasses.astuple(expected)) == dataclasses.astuple(found)


def test_prompts_hidden_by_weights():
    """Where prompts are computed while weights are read, a position takes its part of the step that is left."""
    waits = measured(P, 0, 0, 0)
    cost = msgspec.structs.replace(waits.cost, hides=0.9)
    found = Gauge(CONFIG, GOALS).now([msgspec.structs.replace(waits, cost=cost), measured(D, 1, 0, 0)])
    assert pytest.approx(1000 * (0.005 + max(0.0, 512 * 1e-5 - 0.9 * 0.005)) / 512) == found.prefill


def test_prompts_that_come():
    """What a prefill worker computed more and what waits more, as time of full steps; nothing of one just seen."""
    gauge, token_s = Gauge(CONFIG, GOALS), 1e-5 + 0.005 / 512
    first = [measured(P, 0, 5000, 0), measured(D, 1, 0, 10)]
    assert 0.0 == gauge.came(first)
    longer = msgspec.structs.replace(first[0].load, backlog=Backlog(3000, 0.0))
    longer = msgspec.structs.replace(first[0], load=longer)
    assert pytest.approx(2000 * token_s) == gauge.came([longer, first[1]])
    computed = [measured(P, 0, 7000, 0), measured(P, 1, 900, 0)]
    assert 0.0 == gauge.came(computed)


def test_a_goal_that_weights_alone_nearly_take():
    """Half the rows are half the pressure, whatever a step takes without rows, even if that is more than the goal."""
    for idle, expected in ((0.75, 0.4), (0.95, 1.0), (1.5, 1.0)):
        load = Pressure(0.0, 4.0, idle, 0.1, 0.0)
        assert pytest.approx((expected, expected / 2)) == (load.on_decode(4), load.on_decode(8))


def test_other_numbers():
    """With more workers rows are taken to stay, with fewer the tokens per second; what cannot be kept up is endless."""
    assert pytest.approx(0.3 / 0.7) == A_LOAD.on_decode(2)
    assert pytest.approx(0.3 / 0.7 / 2) == A_LOAD.on_decode(4)
    assert pytest.approx(0.3 / 0.7 * 4 / 3 * 1.5) == replace(A_LOAD, decoders=4.0).on_decode(3)
    assert float("inf") == A_LOAD.on_decode(1)
    assert pytest.approx(0.9) == replace(A_LOAD, idle=0.0, rows=0.0, held=0.45).on_decode(1)
    assert (1.5, 0.5) == (A_LOAD.worst(1, 2), A_LOAD.worst(3, 2))


parts = st.floats(0.0, 10.0)


@given(st.integers(1, 64), parts, parts, st.floats(0.0, 100.0))
def test_more_workers_press_less(decoders, idle, rows, held):
    """Of any load: one more worker never adds pressure, and the number of workers there are leaves it as it is."""
    load = Pressure(1.0, decoders, idle, rows, held)
    assert max(rows / max(1.0 - idle, LEAST_ROOM), held) == load.on_decode(decoders)
    found = [load.on_decode(workers) for workers in range(1, 65)]
    assert all(fewer >= more * (1 - 1e-9) for fewer, more in pairwise(found))
