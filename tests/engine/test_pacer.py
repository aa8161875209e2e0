"""Steps end at absolute deadlines, steps that follow one another have no gap, and runs of steps can be cut."""

import threading

import pytest

from twinfer.core.clock import ManualClock, MonotonicClock
from twinfer.engine.pacer import MAX_BEHIND_S, Pacer


def test_steps_end_after_their_times() -> None:
    """The first one counts from now, the others from the one before."""
    assert [10.5, 10.75] == Pacer(ManualClock(10.0)).begin([0.5, 0.25], follows=False)


@pytest.mark.parametrize(
    ("gap", "follows", "start"),
    [(0.0, True, 1.0), (0.9 * MAX_BEHIND_S, True, 1.0), (1e-3, False, 1.001), (2.0, True, 3.0)],
)
def test_what_deciding_takes_is_no_part_of_the_device(gap: float, follows: bool, start: float) -> None:
    """A step that follows has no gap before it; after a pause, or far too late, it counts from now."""
    clock = ManualClock()
    pacer = Pacer(clock)
    pacer.begin([1.0], follows=False)
    clock.advance(1.0 + gap)
    assert [start + 0.25] == pytest.approx(pacer.begin([0.25], follows=follows), abs=1e-9)


def test_a_step_that_begins_early_counts_from_then() -> None:
    """Nothing runs before it was begun."""
    clock = ManualClock()
    pacer = Pacer(clock)
    pacer.begin([1.0], follows=False)
    clock.advance(0.5)
    assert [0.75] == pacer.begin([0.25], follows=True)


def test_no_step_ends_before_its_deadline() -> None:
    """Whether most of it is slept through or none."""
    clock = MonotonicClock()
    pacer = Pacer(clock)
    for seconds in ([2e-3], [50e-6], [0.0], [1e-3, 1e-3]):
        ends = pacer.begin(seconds, follows=False)
        assert len(seconds) == pacer.wait(ends)
        assert clock.now() >= ends[-1]


def test_a_passed_deadline_waits_for_nothing() -> None:
    """A clock that stands still would never let a wait end."""
    assert 1 == Pacer(ManualClock(5.0)).wait([5.0])
    assert 2 == Pacer(ManualClock(5.0)).wait([4.0, 5.0])


def test_a_change_ends_a_run_with_the_step_under_way() -> None:
    """What comes during the first step finds the engine at its end, and the next step follows there."""
    clock, changed = MonotonicClock(), threading.Event()
    pacer = Pacer(clock, changed)
    ends = pacer.begin([0.01, 60.0, 60.0], follows=False)
    changed.set()
    assert 1 == pacer.wait(ends)
    assert ends[0] <= clock.now()
    assert [ends[0] + 1.0] == pacer.begin([1.0], follows=True)


def test_a_change_is_nothing_to_a_single_step() -> None:
    """It would end then anyway."""
    clock, changed = MonotonicClock(), threading.Event()
    changed.set()
    ends = Pacer(clock).begin([1e-3], follows=False)
    assert 1 == Pacer(clock, changed).wait(ends)
    assert ends[0] <= clock.now()
