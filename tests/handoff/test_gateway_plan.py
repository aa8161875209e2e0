"""What an attempt is made of: whose KV passes where, under names of their own, and whose weights draw the answer."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import count

import msgspec
import pytest

from tests.handoff.test_gateway_side import CAPABILITIES, GRANT, D, E, P, a_client, drawn, split
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
WEIGHTS = CAPABILITIES.fingerprint
OTHERS = msgspec.structs.replace(CAPABILITIES, fingerprint=msgspec.structs.replace(WEIGHTS, weights="others"))


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
    whole, kv = partial(Plan, weights=WEIGHTS), from_(P, "h0")
    assert whole(alone) == Chosen(alone, SNAPSHOT, {}, 128).plan(None, (), False, names())
    assert whole(SPLIT, kv) == Chosen(SPLIT, SNAPSHOT, {P: 64}, 0).plan(None, (), False, names())
    fetching = Fetching(from_(D, "h1"), 128, 64)
    assert whole(SPLIT, kv, fetching) == Chosen(SPLIT, SNAPSHOT, {P: 64}, 128).plan(None, (), False, names())


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
        (Passing(KEPT.handoff, P, KEPT.source_epoch, OTHERS), (), ()),
    ],
)
def test_kv_that_cannot_be_taken_is_computed_anew(kept: Passing, ended: tuple[str, ...], apart: tuple) -> None:
    """This start of the decode worker ended the handoff, its source is another start now or has other weights, or the
    two cannot pass KV."""
    snapshot = ClusterSnapshot(SNAPSHOT.workers, frozenset(apart))
    plan = Chosen(SPLIT, snapshot, {}, 0).plan(kept, ended, False, names())
    assert Plan(SPLIT, from_(P, "h0"), weights=WEIGHTS) == plan


def test_an_answer_belongs_to_the_weights_that_drew_its_first_token() -> None:
    """Before that it may go to others, and then to them alone, whatever is planned."""
    old, new = (msgspec.structs.replace(CAPABILITIES.fingerprint, weights=name) for name in ("old", "new"))
    client = a_client()
    assert client.machine.weights is None
    client.act(client.machine.planned(replace(split(), weights=old)))
    client.act(client.machine.lost(D))
    assert client.machine.weights is None
    client.act(client.machine.planned(Plan(Route(E, None, "test"), weights=new)))
    client.act(client.machine.tokens(drawn(0)))
    assert client.machine.weights == new
    client.act(client.machine.lost(E))
    client.act(client.machine.planned(Plan(Route(D, None, "test"), weights=new)))
    client.act(client.machine.tokens(drawn(1)))
    assert (client.machine.weights, client.tokens) == (new, [10, 11])


def test_an_answer_that_stays_on_the_decode_worker_is_of_its_weights() -> None:
    """Also when most of the prompt was cached there, and the handoff given up for it."""
    client = a_client()
    client.act(client.machine.planned(replace(split(), weights=CAPABILITIES.fingerprint)))
    client.act(client.machine.granted(GRANT, 90))
    client.act(client.machine.tokens(drawn(0)))
    assert CAPABILITIES.fingerprint == client.machine.weights
