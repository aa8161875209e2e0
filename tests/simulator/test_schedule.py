"""Virtual time goes from event to event."""

import pytest

from twinfer.simulator.schedule import Schedule


def test_order() -> None:
    """By time, and by the order in which they were set where that is equal; what was called off does not happen."""
    schedule, seen = Schedule(), []
    schedule.at(2.0, seen.append, "c")
    schedule.at(1.0, seen.append, "a")
    schedule.at(1.0, seen.append, "b")
    schedule.at(1.5, seen.append, "never").cancel()
    schedule.run()
    assert (["a", "b", "c"], 2.0) == (seen, schedule.now())


def test_stop() -> None:
    """Nothing more happens, though it was set."""
    schedule, seen = Schedule(), []
    schedule.at(1.0, seen.append, "a")
    schedule.at(2.0, schedule.stop)
    schedule.at(3.0, seen.append, "b")
    schedule.run()
    assert (["a"], 2.0) == (seen, schedule.now())


def test_no_past() -> None:
    """What is over cannot be changed."""
    schedule = Schedule()
    schedule.at(2.0, lambda: None)
    schedule.run()
    with pytest.raises(ValueError, match="before now"):
        schedule.at(1.0, lambda: None)
