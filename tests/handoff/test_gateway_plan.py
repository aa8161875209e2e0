"""What an attempt is made of: whose KV passes where, under names of their own."""

from collections.abc import Callable
from itertools import count

import pytest

from tests.handoff.test_gateway_side import CAPABILITIES, D, E, P
from twinfer.core.capabilities import Role, WorkerIdentity
from twinfer.core.ids import Epoch, HandoffId, WorkerId
from twinfer.core.load import BlockCounts, Counters, LoadReport
from twinfer.core.route import Route
from twinfer.core.snapshot import ClusterSnapshot, WorkerState
from twinfer.handoff.gateway_actions import Fetching, Passing, Plan
from twinfer.handoff.gateway_plan import Chosen

LOAD = LoadReport(BlockCounts(9, 9, 0, 0), Counters())
WORKERS = {P: Role.PREFILL, D: Role.DECODE, E: Role.DECODE}
SNAPSHOT = ClusterSnapshot(
    tuple(
        WorkerState(WorkerIdentity(worker, Epoch(f"e{worker}"), role, CAPABILITIES, ""), LOAD)
        for worker, role in WORKERS.items()
    )
)
SPLIT = Route(D, P, "test")
KEPT = Passing(HandoffId("kept"), P, Epoch("ep"), CAPABILITIES)


def names() -> Callable[[], HandoffId]:
    """h0, h1, ..."""
    numbers = count()
    return lambda: HandoffId(f"h{next(numbers)}")


def from_(worker: WorkerId, handoff: str) -> Passing:
    """KV of a worker."""
    return Passing(HandoffId(handoff), worker, Epoch(f"e{worker}"), CAPABILITIES)


def test_a_first_attempt() -> None:
    """Nothing passes where one worker does it all; else the prompt's KV, and a prefix the other way where that pays."""
    alone = Route(D, None, "test")
    assert Plan(alone) == Chosen(alone, SNAPSHOT, {}, 128).plan(None, (), False, names())
    assert Plan(SPLIT, from_(P, "h0")) == Chosen(SPLIT, SNAPSHOT, {P: 64}, 0).plan(None, (), False, names())
    fetching = Fetching(from_(D, "h1"), 128, 64)
    assert Plan(SPLIT, from_(P, "h0"), fetching) == Chosen(SPLIT, SNAPSHOT, {P: 64}, 128).plan(None, (), False, names())


def test_an_attempt_that_goes_on_from_output() -> None:
    """A handoff does not pass output: the decode worker computes it all."""
    plan = Chosen(SPLIT, SNAPSHOT, {}, 128).plan(None, (), True, names())
    assert (D, None, None) == (plan.route.decode, plan.route.prefill, plan.passing)


def test_kv_that_is_kept_goes_to_another_worker() -> None:
    """Whatever the router thought of prefill workers, and though there is output to be drawn again."""
    plan = Chosen(Route(E, None, "test"), SNAPSHOT, {}, 128).plan(KEPT, ("ed",), True, names())
    assert (E, P, KEPT, None) == (plan.route.decode, plan.route.prefill, plan.passing, plan.fetching)


@pytest.mark.parametrize(
    ("kept", "ended", "apart"),
    [
        (KEPT, ("ed",), ()),
        (Passing(KEPT.handoff, P, Epoch("before"), CAPABILITIES), (), ()),
        (KEPT, (), ((P, D),)),
    ],
)
def test_kv_that_cannot_be_taken_is_computed_anew(kept: Passing, ended: tuple[str, ...], apart: tuple) -> None:
    """This start of the decode worker ended the handoff, its source is another start now, or the two cannot pass KV."""
    snapshot = ClusterSnapshot(SNAPSHOT.workers, frozenset(apart))
    plan = Chosen(SPLIT, snapshot, {}, 0).plan(kept, ended, False, names())
    assert Plan(SPLIT, from_(P, "h0")) == plan
