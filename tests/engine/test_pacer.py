"""Steps end at absolute deadlines, and steps that follow one another have no gap."""

import pytest

from twinfer.core.clock import ManualClock, MonotonicClock
from twinfer.engine.pacer import GAPLESS_S, Pacer


def test_a_step_ends_after_its_time() -> None:
    """The first one counts from now."""
    assert 10.5 == Pacer(ManualClock(10.0)).begin(0.5)


@pytest.mark.parametrize(("gap", "start"), [(0.0, 1.0), (0.9 * GAPLESS_S, 1.0), (2 * GAPLESS_S, 1.0 + 2 * GAPLESS_S)])
def test_what_deciding_takes_is_no_part_of_the_device(gap: float, start: float) -> None:
    """Shortly after the last step's end the next one follows without a gap; after a pause it counts from now."""
    clock = ManualClock()
    pacer = Pacer(clock)
    pacer.begin(1.0)
    clock.advance(1.0 + gap)
    assert start + 0.25 == pytest.approx(pacer.begin(0.25), abs=1e-9)


def test_a_step_that_begins_early_counts_from_then() -> None:
    """Nothing runs before it was begun."""
    clock = ManualClock()
    pacer = Pacer(clock)
    pacer.begin(1.0)
    clock.advance(0.5)
    assert 0.75 == pacer.begin(0.25)


def test_no_step_ends_before_its_deadline() -> None:
    """Whether most of it is slept through or none."""
    clock = MonotonicClock()
    pacer = Pacer(clock)
    for seconds in (2e-3, 50e-6, 0.0):
        deadline = clock.now() + seconds
        pacer.wait_until(deadline)
        assert clock.now() >= deadline


def test_a_passed_deadline_waits_for_nothing() -> None:
    """A clock that stands still would never let a wait end."""
    Pacer(ManualClock(5.0)).wait_until(5.0)
