"""The gate, where the conformance suite cannot see: several causes, several fences, slow links."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from twinfer.core.errors import TransportError
from twinfer.core.ids import HandoffId
from twinfer.transport.gate import PullGate, RunningPull
from twinfer.transport.throttle import Speed, Throttle

HANDOFF = HandoffId("ab" * 16)


def running(seconds: float = 60.0) -> RunningPull:
    """A pull with so much time."""
    return RunningPull("the pull", time.monotonic() + seconds)


def test_the_first_cause_counts():
    """Whatever breaks because a pull was stopped, the error names why it was stopped."""
    pull = running()
    assert str(pull.fail("one")) == "the pull failed: one"
    assert str(pull.fail("two")) == "the pull failed: one"
    with pytest.raises(TransportError, match="failed: one"):
        pull.check()


def test_wakers_are_called_once_and_never_after_finish():
    """A connection that went back to its pool is not cut by a late fence."""
    calls: list[str] = []
    pull = running()
    pull.when_stopped(lambda: calls.append("early"))
    pull.fail("x")
    pull.fail("y")
    pull.when_stopped(lambda: calls.append("late"))
    assert calls == ["early", "late"]
    whole = running()
    whole.when_stopped(lambda: calls.append("never"))
    whole.finish()
    whole.fail("too late")
    assert calls == ["early", "late"]
    with pytest.raises(TransportError, match="too late"):
        whole.finish()


def test_two_fences_both_wait():
    """A second fence does not return before the pull has left, although the first has closed the handoff."""
    gate = PullGate()
    gate.admit(HANDOFF)
    entered, leave = threading.Event(), threading.Event()

    def pull() -> None:
        with gate.run(HANDOFF, "peer", time.monotonic() + 60):
            entered.set()
            leave.wait()

    with ThreadPoolExecutor() as threads:
        pulling = threads.submit(pull)
        entered.wait()
        fences = [threads.submit(gate.fence, HANDOFF) for _ in range(2)]
        for fence in fences:
            with pytest.raises(TimeoutError):
                fence.result(timeout=0.02)
        leave.set()
        for future in (*fences, pulling):
            assert future.result() is None


def test_a_throttle_gives_up_at_the_deadline():
    """Waiting for a slow link does not outlast the pull."""
    throttle = Throttle(Speed(1.0))
    with pytest.raises(TransportError, match="deadline passed"):
        throttle(1000, running(0.02))
    with pytest.raises(ValueError, match="must move"):
        Throttle(Speed(0))
