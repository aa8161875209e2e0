"""A worker that is cut off on purpose."""

import pytest

from twinfer.core.clock import ManualClock
from twinfer.core.errors import TransportError, TwinferError, WorkerLost
from twinfer.worker.isolation import Isolation


class Stream:
    """Remembers why it was cut."""

    def __init__(self) -> None:
        self.errors: list[TwinferError] = []

    def break_off(self, error: TwinferError) -> None:
        """End it."""
        self.errors.append(error)


def test_nothing_is_cut_by_itself() -> None:
    """Conversations run and end, and bytes count."""
    isolation, stream = Isolation(ManualClock()), Stream()
    with isolation.conversation(stream):
        isolation.check()
    assert (isolation.left_s, stream.errors) == (0.0, [])


def test_beginning_cuts_what_runs_and_only_that() -> None:
    """All open conversations, none that ended before."""
    isolation, ended, streams = Isolation(ManualClock()), Stream(), [Stream(), Stream()]
    with isolation.conversation(ended):
        pass
    with isolation.conversation(streams[0]), isolation.conversation(streams[1]):
        isolation.begin(2.0)
    assert [len(stream.errors) for stream in streams] == [1, 1]
    assert isinstance(streams[0].errors[0], WorkerLost)
    assert ended.errors == []


def test_it_lasts_and_heals() -> None:
    """Meanwhile nothing new begins and no byte counts; an overlapping request only makes it longer."""
    clock = ManualClock(100.0)
    isolation = Isolation(clock)
    isolation.begin(2.0)
    isolation.begin(0.5)
    clock.advance(1.0)
    assert isolation.left_s == 1.0
    with pytest.raises(WorkerLost, match="isolated on purpose"), isolation.conversation(Stream()):
        raise AssertionError("a conversation began")
    with pytest.raises(TransportError, match="isolated on purpose"):
        isolation.check()
    clock.advance(1.0)
    isolation.check()
    with isolation.conversation(Stream()):
        assert isolation.left_s == 0.0
