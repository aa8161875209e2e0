"""A simulation that is lost is told from one that is not."""

from bench.router_misses import EVERY, Misses

from twinfer.simulator.recorder import Journey, Recorder
from twinfer.simulator.summary import Slo

GOALS = Slo(1.0, 0.1)


def a_journey(arrived: float, first: float | None = None, last: float | None = None) -> Journey:
    """Of eleven tokens, ended where the last one is known."""
    ended = last is not None
    return Journey(0, arrived, 10, 11, first, last, 11 if ended else 0, outcome="ok" if ended else "")


def many(*journeys: Journey) -> Recorder:
    """These, and enough that are in time for a look."""
    return Recorder(1.0, journeys=[*journeys, *(a_journey(0.0, 0.5, 1.0) for _ in range(EVERY))])


def test_late_are_those_that_cannot_hold_any_more() -> None:
    """Slow ones that ended, and those whose first token, or last one, is late or still to come though it is time."""
    late = [a_journey(0.0, 0.5, 5.0), a_journey(0.0, 1.5), a_journey(0.0), a_journey(0.0, 0.9)]
    good = [a_journey(0.0, 0.5, 1.0), a_journey(0.5, 1.4), a_journey(1.5)]
    assert (False, True) == tuple(Misses(GOALS, most).too_many(many(*late, *good), 2.0) for most in (4, 3))


def test_none_is_counted_twice() -> None:
    """However often one looks; what was open may be late later."""
    misses, recorder = Misses(GOALS, 1), many(a_journey(0.0), a_journey(1.9))
    assert [False] * 3 == [misses.too_many(recorder, 2.0) for _ in range(3)]
    recorder.journeys += [a_journey(2.9, 3.0, 3.5)] * EVERY
    assert misses.too_many(recorder, 3.0)
