"""A request's life seen from its gateway: tokens in order and once, one outcome, bounded recovery, no leg forgotten."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fakes import MODEL, POOL, a_request
from twinfer.core.config import HandoffConfig
from twinfer.core.errors import CapacityError, DeadlineExceeded, EngineFailure, TwinferError, WorkerLost
from twinfer.core.grant import Grant
from twinfer.core.ids import Epoch, HandoffId, RequestId, WorkerId
from twinfer.core.messages import Busy, Cancel, FailureKind, Generate, Granted, Prefill, Refused, Reserve, ToWorker
from twinfer.core.request import GenerationRequest
from twinfer.core.route import Route
from twinfer.core.tokens import FinishReason, Token
from twinfer.engine.assemble import emulated_capabilities
from twinfer.handoff.gateway_actions import (
    Emit,
    End,
    FetchBegan,
    FetchEnded,
    Fetching,
    GatewayAction,
    Mismatch,
    Passing,
    Plan,
    Replan,
    Send,
)
from twinfer.handoff.gateway_side import LISTEN_S, WAIT_S, GatewayRequest, GatewayState

P, D, E = WorkerId("p"), WorkerId("d"), WorkerId("e")
GRANT = Grant(b"terms", b"signature")
REQUEST = a_request([1] * 100, max_tokens=4)
CAPABILITIES = emulated_capabilities(MODEL, POOL)


@dataclass
class Client:
    """Carries actions out, and keeps what came of them."""

    machine: GatewayRequest
    sent: list[tuple[WorkerId, ToWorker]] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)
    outcomes: list[TwinferError | None] = field(default_factory=list)
    replans: list[Replan] = field(default_factory=list)
    mismatches: list[Mismatch] = field(default_factory=list)
    fetches: list[str] = field(default_factory=list)
    patience: list[float] = field(default_factory=list)

    def act(self, actions: list[GatewayAction]) -> None:
        for action in actions:
            if isinstance(action, Send):
                self.sent.append((action.worker, action.message))
            elif isinstance(action, Emit):
                self.tokens += [token.token_id for token in action.tokens]
            elif isinstance(action, Mismatch):
                self.mismatches.append(action)
            elif isinstance(action, FetchBegan):
                self.patience.append(action.within_s)
            elif isinstance(action, FetchEnded):
                self.fetches.append(action.outcome)
            elif isinstance(action, End):
                self.outcomes.append(action.error)
            else:
                self.replans.append(action)

    def kinds(self) -> list[tuple[str, str]]:
        return [(worker, type(message).__name__) for worker, message in self.sent]


def a_client(request: GenerationRequest = REQUEST, **policy: float) -> Client:
    """A request that was not planned yet."""
    return Client(GatewayRequest(request, 64, HandoffConfig(**policy)))


def split(decode: WorkerId = D, handoff: str = "h") -> Plan:
    """A disaggregated plan."""
    return Plan(Route(decode, P, "test"), Passing(HandoffId(handoff), P, Epoch("ep"), CAPABILITIES))


def split_with_fetch(decode: WorkerId = D, handoff: str = "h") -> Plan:
    """The same, and the prefill worker may fetch a prefix."""
    back = Passing(HandoffId(f"back of {handoff}"), decode, Epoch("ed"), CAPABILITIES)
    return replace(split(decode, handoff), fetching=Fetching(back, 16))


def drawn(index: int, token_id: int | None = None, last: bool = False) -> tuple[Token, ...]:
    """One token of the answer 10, 11, 12, ..."""
    finish = FinishReason.LENGTH if last else None
    return (Token(REQUEST.request_id, index, 10 + index if token_id is None else token_id, finish=finish),)


def test_disaggregated_journey() -> None:
    """Reserve, prefill with the grant, token 0 from either worker once, then the rest."""
    client = a_client()
    client.act(client.machine.planned(split()))
    client.act(client.machine.granted(GRANT, 0))
    for index in (0, 0, 1, 2, 3):
        client.act(client.machine.tokens(drawn(index, last=index == 3)))
    assert client.kinds() == [("d", "Reserve"), ("p", "Prefill")]
    assert (client.tokens, client.outcomes) == ([10, 11, 12, 13], [None])
    reserve, prefill = client.sent[0][1], client.sent[1][1]
    assert isinstance(reserve, Reserve)
    assert isinstance(prefill, Prefill)
    assert reserve.request == prefill.request


@pytest.mark.parametrize("has_tokens", [(48, 0), (16, 32)])
def test_cached_prompt_stays_where_it_is(has_tokens: tuple[int, int]) -> None:
    """When the decode worker has most of the prompt, in either tier, it is told to forget the handoff and generate."""
    client = a_client()
    client.act(client.machine.planned(split()))
    client.act(client.machine.granted(GRANT, *has_tokens))
    assert client.kinds() == [("d", "Reserve"), ("d", "Cancel"), ("d", "Generate")]
    assert client.machine.plan is not None
    assert client.machine.plan.route.prefill is None
    assert "48 of 100" in client.machine.plan.route.reason


def test_two_different_tokens_for_one_index_fail_the_request() -> None:
    """Wrong text is an error, never a choice."""
    client = a_client()
    client.act(client.machine.planned(split()))
    client.act(client.machine.granted(GRANT, 0))
    client.act(client.machine.tokens(drawn(0)))
    client.act(client.machine.tokens(drawn(0, token_id=99)))
    assert isinstance(client.outcomes[0], EngineFailure)
    assert "two different tokens" in str(client.outcomes[0])
    assert client.kinds()[2:] == [("d", "Cancel"), ("p", "Cancel")]


def test_gap_in_the_tokens_fails_the_request() -> None:
    """A missing token cannot be skipped."""
    client = a_client()
    client.act(client.machine.planned(Plan(Route(D, None, "test"))))
    client.act(client.machine.tokens(drawn(1)))
    assert isinstance(client.outcomes[0], EngineFailure)


def test_recovery_continues_with_what_was_emitted() -> None:
    """The decode worker dies in mid-stream: another one gets the prompt and the journal."""
    client = a_client()
    client.act(client.machine.planned(split()))
    client.act(client.machine.granted(GRANT, 0))
    client.act(client.machine.tokens(drawn(0)))
    client.act(client.machine.tokens(drawn(1)))
    client.machine.leg_done(P)
    client.act(client.machine.lost(D))
    assert [Replan(frozenset({D}), 0.0, "lost")] == client.replans
    client.act(client.machine.planned(Plan(Route(E, None, "test"))))
    worker, message = client.sent[-1]
    assert isinstance(message, Generate)
    assert (worker, message.emitted) == ("e", (10, 11))
    assert message.request.request_id == "r.2"
    client.act(client.machine.tokens(drawn(2)))
    client.act(client.machine.tokens(drawn(3, last=True)))
    assert (client.tokens, client.outcomes) == ([10, 11, 12, 13], [None])


def test_recovery_through_a_handoff_repeats_token_zero_only() -> None:
    """A second prefill draws token 0 again, which is known; the decode worker then continues from there."""
    client = a_client()
    client.act(client.machine.planned(split()))
    client.act(client.machine.granted(GRANT, 0))
    client.act(client.machine.tokens(drawn(0)))
    client.act(client.machine.failed(D, FailureKind.HANDOFF, "lost"))
    client.act(client.machine.planned(split(E)))
    client.act(client.machine.granted(GRANT, 0))
    for index in (0, 0, 1, 2, 3):
        client.act(client.machine.tokens(drawn(index, last=index == 3)))
    assert (client.tokens, client.outcomes) == ([10, 11, 12, 13], [None])


@pytest.mark.parametrize("when", ["reserve", "prefill", "hello"])
def test_pair_that_does_not_fit_is_nobodys_failure(when: str) -> None:
    """Whoever finds it out: the pair is named, nobody is excluded, and no attempt is lost."""
    client = a_client(max_attempts=1)
    client.act(client.machine.planned(split()))
    if when == "reserve":
        client.act(client.machine.refused(D, "other heads", incompatible=True))
    else:
        client.act(client.machine.granted(GRANT, 0))
        if when == "prefill":
            client.act(client.machine.refused(P, "another layout", incompatible=True))
        else:
            client.act(client.machine.failed(P, FailureKind.INCOMPATIBLE, "refused by the sink"))
    assert [Mismatch(P, D)] == client.mismatches
    assert [Replan(frozenset(), 0.0, "incompatible")] == client.replans
    assert client.machine.legs == frozenset()
    client.act(client.machine.planned(Plan(Route(D, None, "test"))))
    for index in range(4):
        client.act(client.machine.tokens(drawn(index, last=index == 3)))
    assert client.outcomes == [None]


def test_pair_that_is_tried_again_all_the_same_is_a_failure() -> None:
    """A router that does not listen cannot keep a request going round for ever."""
    client = a_client(max_attempts=1)
    for _ in range(2):
        client.act(client.machine.planned(split()))
        client.act(client.machine.refused(D, "other heads", incompatible=True))
    assert [str(error) for error in client.outcomes] == ["worker d cannot take part: other heads"]


def test_generating_where_the_prompt_is_cached_names_its_provenance() -> None:
    """What the decode worker has may be the prefill worker's numbers: it is told that these may be used."""
    client = a_client()
    client.act(client.machine.planned(split()))
    client.act(client.machine.granted(GRANT, 48))
    generate = client.sent[-1][1]
    assert isinstance(generate, Generate)
    assert generate.provenance == "emulated/fp32"


def test_error_names_the_leg_that_failed_first() -> None:
    """R9: later failures do not hide the first."""
    client = a_client(max_attempts=2)
    client.act(client.machine.planned(split()))
    client.act(client.machine.granted(GRANT, 0))
    client.act(client.machine.failed(P, FailureKind.ENGINE, "out of luck"))
    client.act(client.machine.failed(D, FailureKind.HANDOFF, "withdrawn"))
    client.act(client.machine.planned(split()))
    client.act(client.machine.lost(D))
    assert [str(error) for error in client.outcomes] == ["worker p: out of luck"]


def test_busy_waits_and_then_says_so() -> None:
    """Waiting for room is no failed attempt, but ends."""
    client = a_client(max_busy_s=2.0)
    for now in (0.0, 0.5, 1.0, 1.5):
        client.act(client.machine.planned(split()))
        client.act(client.machine.busy(D, Busy(client.machine.wire_id, 0.5), now))
    assert [replan.pause_s for replan in client.replans] == [0.5] * 4
    client.act(client.machine.planned(split()))
    client.act(client.machine.busy(D, Busy(client.machine.wire_id, 0.5), 2.0))
    assert isinstance(client.outcomes[0], CapacityError)


def test_who_waited_at_the_worker_has_waited() -> None:
    """What it waited there counts as if it had been told at once, and had come again and again."""
    client = a_client(max_busy_s=2.0)
    client.act(client.machine.planned(split()))
    client.act(client.machine.busy(D, Busy(client.machine.wire_id, 0.5, waited_s=2.0), 2.0))
    assert ["worker d has no free capacity; try again later"] == [str(error) for error in client.outcomes]


@pytest.mark.parametrize("num_tokens", [1, 3])
def test_answer_that_has_begun_is_not_refused_for_want_of_room(num_tokens: int) -> None:
    """Handed back by one worker that changes its role, and after a long wait by the next: it still goes on."""
    client = a_client(max_busy_s=2.0)
    client.act(client.machine.planned(split()))
    client.act(client.machine.granted(GRANT, 0))
    for index in range(num_tokens):
        client.act(client.machine.tokens(drawn(index)))
    for now, waited_s in ((0.0, 0.0), (1.5, 0.0), (10.0, 0.0), (20.0, 2.0)):
        client.act(client.machine.busy(D, Busy(client.machine.wire_id, 0.5, waited_s), now))
        client.act(client.machine.planned(split()))
    assert [] == client.outcomes
    assert ["busy"] * 4 == [replan.reason for replan in client.replans]


@pytest.mark.parametrize("ended", [True, False])
def test_client_that_leaves_frees_both_legs(ended: bool) -> None:
    """Both are told, whatever the state; nothing is emitted afterwards."""
    client = a_client()
    client.act(client.machine.planned(split()))
    client.act(client.machine.granted(GRANT, 0))
    if ended:
        client.act(client.machine.tokens(drawn(0, last=True)))
    client.act(client.machine.client_left())
    assert client.kinds()[2:] == [("d", "Cancel"), ("p", "Cancel")]
    client.act(client.machine.tokens(drawn(1)))
    client.act(client.machine.lost(D))
    assert ([10] if ended else []) == client.tokens
    assert client.replans == []


def test_deadlines_end_it() -> None:
    """The gateway's own, and a worker's."""
    client = a_client()
    client.act(client.machine.planned(split()))
    client.act(client.machine.overdue())
    other = a_client()
    other.act(other.machine.planned(split()))
    other.act(other.machine.failed(D, FailureKind.DEADLINE, "too late"))
    for outcome in (client.outcomes, other.outcomes):
        assert isinstance(outcome[0], DeadlineExceeded)


def test_no_route_ends_with_the_first_error() -> None:
    """When nobody comes back in time to take over, the client learns what went wrong at first."""
    client = a_client()
    client.act(client.machine.planned(split()))
    client.act(client.machine.lost(D))
    for now in (0.0, 5.0):
        client.act(client.machine.unplannable(CapacityError("nobody"), now))
    assert client.outcomes == []
    client.act(client.machine.unplannable(CapacityError("nobody"), 10.0))
    assert isinstance(client.outcomes[0], WorkerLost)


def test_new_request_waits_for_workers_that_may_come() -> None:
    """A gateway that was just started, or whose only worker was: for a while; its client is told at once otherwise."""
    client = a_client(max_busy_s=2.0)
    for now in (0.0, 1.0, 1.9):
        client.act(client.machine.unplannable(CapacityError("nobody"), now, awaited=True))
    assert client.outcomes == []
    assert [Replan(frozenset(), WAIT_S, "waiting")] * 3 == client.replans
    client.act(client.machine.unplannable(CapacityError("nobody"), 2.0, awaited=True))
    other = a_client(max_busy_s=2.0)
    other.act(other.machine.unplannable(CapacityError("nobody"), 0.0, awaited=False))
    for outcome in (client.outcomes, other.outcomes):
        assert isinstance(outcome[0], CapacityError)


def test_each_wait_has_its_own_bound() -> None:
    """A request that waited for room at its beginning may wait for a worker in its middle."""
    client = a_client(max_busy_s=2.0)
    client.act(client.machine.planned(split()))
    client.act(client.machine.busy(D, Busy(client.machine.wire_id, 0.5), 0.0))
    client.act(client.machine.planned(split()))
    client.act(client.machine.granted(GRANT, 0))
    client.act(client.machine.tokens(drawn(0)))
    client.act(client.machine.tokens(drawn(1)))
    client.act(client.machine.lost(D))
    for now in (100.0, 101.9):
        client.act(client.machine.unplannable(CapacityError("nobody"), now))
    assert client.outcomes == []


def test_plan_that_never_began_does_not_count() -> None:
    """However often a worker is gone when its turn comes; the other leg is cancelled each time."""
    client = a_client(max_attempts=1)
    for _ in range(5):
        client.act(client.machine.planned(split()))
        client.act(client.machine.granted(GRANT, 0))
        client.act(client.machine.unreached(P))
        client.act(client.machine.unreached(P))
    assert (client.outcomes, client.machine.legs, client.machine.num_recoveries) == ([], frozenset(), 0)
    assert [Replan(frozenset(), 0.0, "unreached")] * 5 == client.replans
    assert client.kinds() == [("d", "Reserve"), ("p", "Prefill"), ("d", "Cancel")] * 5


def test_workers_that_lost_each_other_are_planned_again_after_a_moment() -> None:
    """In which a gateway learns which of them died."""
    client = a_client()
    client.act(client.machine.planned(split()))
    client.act(client.machine.granted(GRANT, 0))
    client.act(client.machine.failed(D, FailureKind.UNREACHABLE, "lost"))
    assert [Replan(frozenset({D}), LISTEN_S, "unreachable")] == client.replans


def test_sink_that_dies_before_it_took_over_is_replaced_with_the_same_kv() -> None:
    """The source is asked to pass what it has to another worker: same handoff, next attempt, same request."""
    client = a_client()
    client.act(client.machine.planned(split()))
    client.act(client.machine.granted(GRANT, 0))
    client.act(client.machine.tokens(drawn(0)))
    client.act(client.machine.lost(D))
    assert [Replan(frozenset({D}), 0.0, "lost", split().passing)] == client.replans
    client.act(client.machine.planned(split(E)))
    client.act(client.machine.granted(GRANT, 0))
    assert client.kinds() == [("d", "Reserve"), ("p", "Prefill"), ("e", "Reserve"), ("p", "Prefill")]
    first, again = client.sent[0][1], client.sent[2][1]
    assert isinstance(first, Reserve)
    assert isinstance(again, Reserve)
    assert (first.handoff, first.request, 1, 2) == (again.handoff, again.request, first.attempt, again.attempt)


def test_kept_kv_is_let_go_when_the_next_plan_does_not_use_it() -> None:
    """A plan of another kind cancels the source first."""
    client = a_client()
    client.act(client.machine.planned(split()))
    client.act(client.machine.granted(GRANT, 0))
    client.act(client.machine.lost(D))
    client.act(client.machine.planned(Plan(Route(E, None, "test"))))
    assert client.kinds()[2:] == [("p", "Cancel"), ("e", "Generate")]


@pytest.mark.parametrize("moment", ["before the plan", "after it", "after the grant"])
def test_first_token_of_a_kept_source_stops_nothing(moment: str) -> None:
    """The source draws on while another decode worker is sought: that one is granted the KV all the same."""
    client = a_client()
    client.act(client.machine.planned(split()))
    client.act(client.machine.granted(GRANT, 0))
    client.act(client.machine.lost(D))
    steps = {
        "before the plan": lambda: client.machine.planned(split(E)),
        "after it": lambda: client.machine.granted(GRANT, 0),
        "after the grant": list,
    }
    for name, step in steps.items():
        if name == moment:
            client.act(client.machine.tokens(drawn(0)))
        client.act(step())
    assert client.kinds()[2:] == [("e", "Reserve"), ("p", "Prefill")]
    client.act(client.machine.tokens(drawn(0)))
    for index in (1, 2, 3):
        client.act(client.machine.tokens(drawn(index, last=index == 3)))
    assert client.outcomes == [None]


def test_source_that_lets_go_while_a_sink_is_sought_is_no_failure() -> None:
    """What it kept is not asked for any more, the request is planned once, and no attempt is lost."""
    client = a_client(max_attempts=2)
    client.act(client.machine.planned(split()))
    client.act(client.machine.granted(GRANT, 0))
    client.act(client.machine.lost(D))
    client.act(client.machine.failed(P, FailureKind.HANDOFF, "the decode worker gave up: unknown"))
    assert [Replan(frozenset({D}), 0.0, "lost", split().passing), Replan(frozenset({D}), 0.0, "handoff")] == (
        client.replans
    )
    for plan in (split(E, "new"), split(E)):
        client.act(client.machine.planned(plan))
    client.act(client.machine.unplannable(CapacityError("nobody"), 0.0))
    assert client.kinds()[2:] == [("e", "Reserve")]
    assert (client.outcomes, client.machine.legs) == ([], frozenset({E}))


EVENTS = (
    "grant",
    "lend",
    "fetched",
    "unfetched",
    "waited",
    "token",
    "token",
    "token",
    "repeat",
    "busy",
    "refuse",
    "fail",
    "lose",
    "leave",
    "overdue",
)


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_any_order_of_events(data: st.DataObject) -> None:
    """R5: one outcome at most, tokens in order and once, and no worker is left holding something."""
    client = a_client()
    machine = client.machine
    plans = [split(), Plan(Route(D, None, "test")), split_with_fetch()]
    client.act(machine.planned(data.draw(st.sampled_from(plans))))
    given_up: set[tuple[WorkerId, str]] = set()
    for now in range(data.draw(st.integers(1, 40))):
        before = (list(client.tokens), len(client.outcomes), machine.ended)
        worker = data.draw(st.sampled_from([P, D, E]))
        event = data.draw(st.sampled_from(EVENTS))
        if event in {"busy", "refuse", "fail", "lose"}:
            given_up.add((worker, machine.wire_id))
        num_fetches = client.fetches.count("fetched")
        client.act(happen(machine, event, worker, float(now), data))
        if client.fetches.count("fetched") > num_fetches:
            given_up |= {(each, RequestId(f"{machine.wire_id}.fetch")) for each in (P, D, E)}
        if before[2]:
            assert before[:2] == (client.tokens, len(client.outcomes))
        if machine.state is GatewayState.RECOVERING:
            handoff, decode = data.draw(st.sampled_from(["h", "another"])), data.draw(st.sampled_from([D, E]))
            plan = split_with_fetch(decode, handoff) if data.draw(st.booleans()) else split(decode, handoff)
            client.act(machine.planned(plan))
        assert len(client.outcomes) <= 1
        assert [10 + index for index in range(len(client.tokens))] == client.tokens
        assert (len(client.patience) > len(client.fetches)) == (machine.state is GatewayState.FETCHING)
    client.act(machine.client_left())
    asked = {(w, m.request.request_id) for w, m in client.sent if not isinstance(m, Cancel)}
    cancelled = {(w, m.request_id) for w, m in client.sent if isinstance(m, Cancel)}
    assert asked <= cancelled | given_up


def happen(
    machine: GatewayRequest, event: str, worker: WorkerId, now: float, data: st.DataObject
) -> list[GatewayAction]:
    """One event at the machine; rare ones happen rarely."""
    rarely = data.draw(st.integers(0, 5)) == 0
    known, fetch = len(machine.journal), RequestId(f"{machine.wire_id}.fetch")
    events: dict[str, Callable[[], list[GatewayAction]]] = {
        "grant": lambda: machine.granted(GRANT, 80 if rarely else data.draw(st.sampled_from([0, 20]))),
        "lend": lambda: machine.hear(P, Granted(fetch, GRANT, 0), now),
        "fetched": lambda: machine.fetch_done(worker, fetch),
        "unfetched": lambda: machine.hear(worker, Refused(fetch, "no"), now),
        "waited": lambda: machine.fetch_overdue(fetch),
        "token": lambda: machine.tokens(drawn(known, last=known == 3)),
        "repeat": lambda: machine.tokens(drawn(data.draw(st.integers(0, known - 1)))) if known else [],
        "busy": lambda: machine.busy(worker, Busy(machine.wire_id, 0.5), now),
        "refuse": lambda: machine.refused(worker, "no"),
        "fail": lambda: machine.failed(worker, data.draw(st.sampled_from(FailureKind)), "broke"),
        "lose": lambda: machine.lost(worker),
        "leave": lambda: machine.client_left() if rarely else [],
        "overdue": lambda: machine.overdue() if rarely else [],
    }
    return events[event]()
