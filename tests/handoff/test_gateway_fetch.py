"""A prefix fetched for a prompt: when it is tried, and that nothing that happens to it costs more than its time."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from tests.fakes import a_request
from tests.handoff.test_gateway_side import CAPABILITIES, GRANT, REQUEST, Client, D, E, P, a_client, drawn, split
from twinfer.core.grant import Grant, Use
from twinfer.core.ids import Epoch, HandoffId, RequestId, WorkerId
from twinfer.core.messages import Busy, Failed, FailureKind, Granted, Lend, Refused, Reserve
from twinfer.handoff.gateway_actions import Fetching, GatewayAction, Mismatch, Passing, Plan, Replan
from twinfer.handoff.gateway_side import GatewayState

FETCH = RequestId("r.1.fetch")
LENT = Grant(b"to the prefill worker", b"signature")
FETCHING = Fetching(Passing(HandoffId("f"), D, Epoch("ed"), CAPABILITIES), 16)
TO_FETCH = [("d", "Reserve"), ("p", "Reserve")]
GAVE_UP = [("d", "Cancel"), ("p", "Cancel")]
PREFILLED = [("p", "Prefill")]


def with_fetch() -> Plan:
    """Disaggregated, and a prefix may be fetched."""
    return replace(split(), fetching=FETCHING)


def fetching(cached_tokens: int = 32, **policy: float) -> Client:
    """A request whose decode worker has that many tokens of the prompt."""
    client = a_client(**policy)
    client.act(client.machine.planned(with_fetch()))
    client.act(client.machine.granted(GRANT, cached_tokens))
    return client


def hear(client: Client, worker: WorkerId, message: Granted | Busy | Refused | Failed) -> None:
    """A worker speaks."""
    client.act(client.machine.hear(worker, message, 0.0))


def test_prefix_is_fetched_and_then_prefilled() -> None:
    """The prefill worker grants, the decode worker lends what it said it has, and the prompt follows."""
    client = fetching()
    hear(client, P, Granted(FETCH, LENT, 8))
    assert client.kinds() == [*TO_FETCH, ("d", "Lend")]
    reserve, lend = client.sent[1][1], client.sent[2][1]
    assert isinstance(reserve, Reserve)
    assert isinstance(lend, Lend)
    assert (reserve.use, reserve.source, reserve.source_epoch, reserve.handoff) == (Use.CACHE, "d", "ed", "f")
    assert (reserve.request, lend.grant) == (lend.request, LENT)
    assert (lend.request.request_id, lend.request.prompt, lend.request.deadline_s) == (FETCH, (1,) * 32, 5.0)
    client.act(client.machine.fetch_done(D, FETCH))
    assert client.machine.state is GatewayState.FETCHING
    client.act(client.machine.fetch_done(P, FETCH))
    assert client.kinds() == [*TO_FETCH, ("d", "Lend"), *PREFILLED]
    assert client.fetches == ["fetched"]
    assert client.machine.plan is not None
    assert client.machine.plan.route.reason == "test; its beginning was fetched from d"
    for index in (0, 0, 1, 2, 3):
        client.act(client.machine.tokens(drawn(index, last=index == 3)))
    assert (client.tokens, client.outcomes) == ([10, 11, 12, 13], [None])


def known(cached_tokens: int) -> Plan:
    """The same, where the prefill worker is known to have that many tokens."""
    return replace(split(), fetching=replace(FETCHING, cached_tokens=cached_tokens))


@pytest.mark.parametrize(
    ("cached_tokens", "plan"), [(15, with_fetch()), (36, split()), (32, known(32)), (32, known(17)), (8, known(32))]
)
def test_not_worth_asking(cached_tokens: int, plan: Plan) -> None:
    """With no more on the decode worker than pays, or when the router says no, the prompt is sent at once."""
    client = a_client()
    client.act(client.machine.planned(plan))
    client.act(client.machine.granted(GRANT, cached_tokens))
    assert client.kinds() == [("d", "Reserve"), *PREFILLED]
    assert client.fetches == []


def test_what_it_is_known_to_have_leaves_enough() -> None:
    """With as much more on the decode worker as pays, the prefill worker is asked."""
    client = a_client()
    client.act(client.machine.planned(known(16)))
    client.act(client.machine.granted(GRANT, 32))
    assert client.kinds() == TO_FETCH


def test_the_prefill_worker_has_it() -> None:
    """More than was known: then the promise is given back, and nobody lends."""
    client = fetching()
    hear(client, P, Granted(FETCH, LENT, 17))
    assert client.kinds() == [*TO_FETCH, *GAVE_UP, *PREFILLED]
    assert client.fetches == ["cached"]


def test_what_is_in_host_tiers_counts() -> None:
    """The decode worker lends it, too; and a prefill worker that has it there needs no fetch."""
    client = a_client()
    client.act(client.machine.planned(with_fetch()))
    client.act(client.machine.granted(GRANT, 8, 24))
    hear(client, P, Granted(FETCH, LENT, 8, 8))
    lend = client.sent[2][1]
    assert isinstance(lend, Lend)
    assert lend.request.prompt == (1,) * 32
    other = fetching(16)
    hear(other, P, Granted(FETCH, LENT, 0, 8))
    assert other.fetches == ["cached"]


@pytest.mark.parametrize(
    ("said", "outcome"),
    [
        (Busy(FETCH, 1.0), "busy"),
        (Refused(FETCH, "no"), "refused"),
        (Failed(FETCH, FailureKind.HANDOFF, "lost"), "failed"),
        (Failed(FETCH, FailureKind.DEADLINE, "too late"), "failed"),
        (None, "overdue"),
    ],
)
@pytest.mark.parametrize("lent", [False, True])
def test_a_fetch_that_fails_costs_nothing(lent: bool, said: Busy | Refused | Failed | None, outcome: str) -> None:
    """Whoever gives it up: it is cancelled on both sides and the prompt is computed whole, at the first attempt."""
    client = fetching(max_attempts=1)
    if lent:
        hear(client, P, Granted(FETCH, LENT, 0))
    before = client.kinds()
    if said is None:
        client.act(client.machine.fetch_overdue(FETCH))
    else:
        hear(client, D if lent else P, said)
    assert client.kinds() == [*before, *GAVE_UP, *PREFILLED]
    assert (client.fetches, client.replans, client.outcomes) == ([outcome], [], [])
    for late in (Granted(FETCH, LENT, 0), Refused(FETCH, "no")):
        hear(client, P, late)
    client.act(client.machine.fetch_done(P, FETCH))
    client.act(client.machine.fetch_overdue(FETCH))
    assert client.kinds() == [*before, *GAVE_UP, *PREFILLED]


@pytest.mark.parametrize("said", [Refused(FETCH, "heads", True), Failed(FETCH, FailureKind.INCOMPATIBLE, "heads")])
def test_a_pair_that_cannot_is_remembered(said: Refused | Failed) -> None:
    """The direction of the fetch, which says nothing of the other one."""
    client = fetching()
    hear(client, P, said)
    assert [Mismatch(D, P)] == client.mismatches
    assert (client.fetches, client.kinds()[-1], client.replans) == (["incompatible"], ("p", "Prefill"), [])


@pytest.mark.parametrize("worker", [P, D])
def test_a_worker_dies_in_the_middle(worker: WorkerId) -> None:
    """What the other one holds is cancelled, the fetch too; nothing that the prefill worker has is kept."""
    client = fetching()
    hear(client, P, Granted(FETCH, LENT, 0))
    client.act(client.machine.lost(worker))
    other = D if worker is P else P
    assert client.kinds()[3:] == [(other, "Cancel"), *GAVE_UP]
    assert [Replan(frozenset({worker}), 0.0, "lost")] == client.replans
    assert client.fetches == ["abandoned"]
    client.act(client.machine.planned(split(E)))
    hear(client, P, Granted(FETCH, LENT, 0))
    client.act(client.machine.fetch_done(P, FETCH))
    assert client.kinds()[-1] == ("e", "Reserve")


@pytest.mark.parametrize(
    "leave", [lambda machine: machine.client_left(), lambda machine: machine.overdue()], ids=["client", "deadline"]
)
def test_request_ends_in_the_middle(leave: Callable[..., list[GatewayAction]]) -> None:
    """Four cancels: of the request and of its fetch, on both workers."""
    client = fetching()
    client.act(leave(client.machine))
    assert client.kinds()[2:] == [*GAVE_UP, *GAVE_UP]
    assert client.fetches == ["abandoned"]


def test_a_fetch_has_no_more_time_than_its_request() -> None:
    """A request in a hurry has a fetch in a hurry."""
    client = a_client(a_request([1] * 100, deadline_s=2.0))
    client.act(client.machine.planned(with_fetch()))
    client.act(client.machine.granted(GRANT, 32))
    reserve = client.sent[-1][1]
    assert isinstance(reserve, Reserve)
    assert (reserve.request.deadline_s, client.patience) == (2.0, [2.0])


def test_words_about_earlier_attempts_are_nobodys() -> None:
    """Only the current wire id counts."""
    client = fetching()
    hear(client, D, Failed(RequestId("r.0"), FailureKind.HANDOFF, "late"))
    assert (client.replans, client.machine.state, REQUEST.request_id) == ([], GatewayState.FETCHING, "r")
