"""Steps as one take as long as step by step."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fakes import a_request
from twinfer.core.step import Slice, StepPlan
from twinfer.devices.catalogue import Catalogue
from twinfer.devices.model_config import load_shape
from twinfer.devices.placement import Placement
from twinfer.engine.step_times import DeviceTimes
from twinfer.simulator.timed_run import TimedRun, timed_run

SHAPES = {name: load_shape(name) for name in ("gpt-oss-120b", "qwen3-8b")}
DEVICES = {name: Catalogue().device(name)[0] for name in ("h100", "cs3", "trn3")}


def a_plan(contexts: list[int], steps: int, until: float = math.inf) -> StepPlan:
    """One token for each context, and so many steps of that."""
    request = a_request([1])
    slices = tuple(Slice(request, [0], context, [], 1, []) for context in contexts)
    return StepPlan(slices, steps=steps, until=until)


@settings(deadline=None)
@given(
    contexts=st.lists(st.integers(0, 40_000), min_size=1, max_size=12),
    steps=st.integers(1, 400),
    device=st.sampled_from(sorted(DEVICES)),
    shape=st.sampled_from(sorted(SHAPES)),
)
def test_a_run_is_its_steps(contexts: list[int], steps: int, device: str, shape: str) -> None:
    """Whatever bounds a step, and wherever windows fill up: every step of a run ends when it would by itself."""
    times, plan = DeviceTimes(DEVICES[device], SHAPES[shape], Placement(2)), a_plan(contexts, steps)
    run = timed_run(times, plan, 3.0)
    assert 1 <= run.steps <= steps
    now = 3.0
    for index in range(run.steps):
        now += times.seconds(plan, index)
        assert run.end(index + 1) == pytest.approx(now, rel=1e-9)


@given(st.integers(1, 300), st.floats(1e-4, 1.0), st.floats(0, 1e-3), st.floats(0, 400))
def test_what_is_over(steps: int, first_s: float, growth_s: float, now: float) -> None:
    """All steps that have ended, but never the last one."""
    run = TimedRun(a_plan([1], steps), 0.0, steps, first_s, growth_s)
    assert run.over_at(now) == sum(run.end(index) <= now for index in range(1, steps))


def test_no_step_begins_too_late() -> None:
    """A request whose time is over does not take part in another step."""
    times = DeviceTimes(DEVICES["h100"], SHAPES["qwen3-8b"], Placement())
    whole = timed_run(times, a_plan([100], 50), 0.0)
    cut = timed_run(times, a_plan([100], 50, whole.end(10) - 1e-9), 0.0)
    assert (50, 10) == (whole.steps, cut.steps)
