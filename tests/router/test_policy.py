"""Routes: any snapshot gives a valid one or a stated refusal."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fakes import MODEL, POOL, a_request
from twinfer.core.capabilities import Role, WorkerIdentity
from twinfer.core.config import RoutingConfig
from twinfer.core.errors import CapacityError, ContextOverflow, InvalidRequest, TwinferError
from twinfer.core.ids import Epoch, ModelId, WorkerId
from twinfer.core.load import BlockCounts, Counters, LoadReport
from twinfer.core.request import Grammar
from twinfer.core.route import Route, RouteKind
from twinfer.core.snapshot import ClusterSnapshot, WorkerState
from twinfer.engine.assemble import emulated_capabilities
from twinfer.router.policy import choose_route, fetch_threshold

CAPABILITIES = emulated_capabilities(MODEL, POOL)
ROUTING = RoutingConfig(min_remote_tokens=64)
LONG, SHORT = a_request([1] * 100), a_request([1] * 10)


def a_worker(name: str, role: Role, waiting_tokens: int = 0, in_flight: int = 0, context: int = 32768) -> WorkerState:
    """A live worker of the test model."""
    capabilities = msgspec.structs.replace(CAPABILITIES, max_context_tokens=context)
    identity = WorkerIdentity(WorkerId(name), Epoch("e"), role, capabilities, f"unix:/{name}")
    load = LoadReport(BlockCounts(8, 8, 0, 0), Counters(), waiting_tokens=waiting_tokens)
    return WorkerState(identity, load, in_flight)


def snapshot(*workers: WorkerState) -> ClusterSnapshot:
    """A cluster of these."""
    return ClusterSnapshot(workers)


PAIR = snapshot(a_worker("p", Role.PREFILL), a_worker("d", Role.DECODE))


def test_long_prompts_are_split_and_short_ones_are_not() -> None:
    """At least ``min_remote_tokens`` make a handoff worth it."""
    assert ends(choose_route(LONG, PAIR, ROUTING)) == ("d", "p")
    assert ends(choose_route(SHORT, PAIR, ROUTING)) == ("d", None)


def test_client_may_force_either_mode() -> None:
    """The header wins over the threshold."""
    assert ends(choose_route(LONG, PAIR, ROUTING, RouteKind.AGGREGATED)) == ("d", None)
    assert ends(choose_route(SHORT, PAIR, ROUTING, RouteKind.DISAGGREGATED)) == ("d", "p")


def test_when_a_fetch_pays() -> None:
    """From the configured number of tokens on, between workers that make the same numbers and can reach each other."""
    route, whole = Route(WorkerId("d"), WorkerId("p"), "test"), Route(WorkerId("d"), None, "test")
    assert fetch_threshold(route, PAIR, ROUTING) == 128
    assert fetch_threshold(whole, PAIR, ROUTING) == 0
    assert fetch_threshold(route, PAIR, RoutingConfig(min_fetch_tokens=0)) == 0
    back = ClusterSnapshot(PAIR.workers, frozenset({(WorkerId("d"), WorkerId("p"))}))
    assert fetch_threshold(route, back, ROUTING) == 0
    other = msgspec.structs.replace(CAPABILITIES, provenance="bf16/bf16")
    coarse = msgspec.structs.replace(PAIR.workers[1].identity, capabilities=other)
    mixed = snapshot(PAIR.workers[0], msgspec.structs.replace(PAIR.workers[1], identity=coarse))
    assert fetch_threshold(route, mixed, ROUTING) == 0


def test_without_prefill_workers_everything_is_aggregated() -> None:
    """Unless that was to be forced, which is refused in words."""
    alone = snapshot(a_worker("b", Role.BOTH))
    assert ends(choose_route(LONG, alone, ROUTING)) == ("b", None)
    with pytest.raises(CapacityError, match="no prefill worker"):
        choose_route(LONG, alone, ROUTING, RouteKind.DISAGGREGATED)


def test_least_loaded_of_each_role() -> None:
    """The prefill worker with the shortest queue, the decode worker with the fewest sequences."""
    busy = snapshot(
        a_worker("p0", Role.PREFILL, waiting_tokens=500),
        a_worker("p1", Role.PREFILL),
        a_worker("d0", Role.DECODE, in_flight=3),
        a_worker("d1", Role.DECODE),
    )
    assert ends(choose_route(LONG, busy, ROUTING)) == ("d1", "p1")


def test_failed_worker_is_avoided_unless_it_is_the_only_one() -> None:
    """Recovery goes elsewhere where there is an elsewhere; else there is no handoff, unless forced."""
    two = snapshot(a_worker("p", Role.PREFILL), a_worker("d0", Role.DECODE), a_worker("d1", Role.DECODE))
    assert choose_route(LONG, two, ROUTING, None, {WorkerId("d0")}).decode == "d1"
    for failed in ({"d", "p"}, {"p"}, {"d"}):
        excluded = {WorkerId(name) for name in failed}
        assert ends(choose_route(LONG, PAIR, ROUTING, None, excluded)) == ("d", None)
        assert ends(choose_route(LONG, PAIR, ROUTING, RouteKind.DISAGGREGATED, excluded)) == ("d", "p")


def test_a_pair_that_cannot_pass_kv_is_not_chosen() -> None:
    """Another source, or none; a client that insists on a handoff gets another decode worker, or a reason."""
    workers = [a_worker(name, Role.PREFILL) for name in ("p0", "p1")]
    workers += [a_worker("d0", Role.DECODE), a_worker("d1", Role.DECODE, in_flight=3)]
    names = [state.identity.worker for state in workers]
    odd = ClusterSnapshot(tuple(workers), frozenset({(names[0], names[2])}))
    assert ends(choose_route(LONG, odd, ROUTING)) == ("d0", "p1")
    worse = ClusterSnapshot(tuple(workers), frozenset({(names[0], names[2]), (names[1], names[2])}))
    assert ends(choose_route(LONG, worse, ROUTING)) == ("d0", None)
    assert ends(choose_route(LONG, worse, ROUTING, RouteKind.DISAGGREGATED)) == ("d1", "p0")
    hopeless = ClusterSnapshot(PAIR.workers, frozenset({(WorkerId("p"), WorkerId("d"))}))
    with pytest.raises(CapacityError, match="no prefill worker"):
        choose_route(LONG, hopeless, ROUTING, RouteKind.DISAGGREGATED)


def with_weights(state: WorkerState, weights: str) -> WorkerState:
    """The same worker with others."""
    capabilities = state.identity.capabilities
    fingerprint = msgspec.structs.replace(capabilities.fingerprint, weights=weights)
    identity = msgspec.structs.replace(
        state.identity, capabilities=msgspec.structs.replace(capabilities, fingerprint=fingerprint)
    )
    return msgspec.structs.replace(state, identity=identity)


def test_workers_with_other_weights_are_no_pair() -> None:
    """The new decode worker computes a prompt itself until there is a new prefill worker, and lends nothing."""
    old, new = PAIR.workers[0], with_weights(a_worker("e", Role.DECODE), "new")
    assert ends(choose_route(LONG, snapshot(old, new), ROUTING)) == ("e", None)
    with pytest.raises(CapacityError, match="no prefill worker"):
        choose_route(LONG, snapshot(old, new), ROUTING, RouteKind.DISAGGREGATED)
    both = snapshot(old, a_worker("d", Role.DECODE, in_flight=1), new)
    assert ends(choose_route(LONG, both, ROUTING, RouteKind.DISAGGREGATED)) == ("d", "p")
    complete = snapshot(*both.workers, with_weights(a_worker("q", Role.PREFILL, waiting_tokens=99), "new"))
    assert ends(choose_route(LONG, complete, ROUTING)) == ("e", "q")
    assert [state.identity.worker for state in complete.sharing(new.identity.capabilities.fingerprint).workers] == [
        "e",
        "q",
    ]


def test_workers_that_did_not_hear_each_other_are_kept_apart() -> None:
    """An idle decode worker that is cut off is not favoured; without another it computes prompts itself."""
    idle, busy = a_worker("d0", Role.DECODE), a_worker("d1", Role.DECODE, in_flight=9)
    workers = (a_worker("p", Role.PREFILL), idle, busy)
    parted = frozenset({(WorkerId("p"), WorkerId("d0"))})
    assert ends(choose_route(LONG, ClusterSnapshot(workers, parted=parted), ROUTING)) == ("d1", "p")
    assert ends(choose_route(SHORT, ClusterSnapshot(workers, parted=parted), ROUTING)) == ("d0", None)
    alone = ClusterSnapshot(workers[:2], parted=parted)
    assert ends(choose_route(LONG, alone, ROUTING)) == ("d0", None)
    assert ends(choose_route(LONG, alone, ROUTING, RouteKind.DISAGGREGATED)) == ("d0", "p")
    other_source = ClusterSnapshot((*workers[:2], a_worker("q", Role.PREFILL, waiting_tokens=99)), parted=parted)
    assert ends(choose_route(LONG, other_source, ROUTING)) == ("d0", "q")


def test_refusals_say_why() -> None:
    """Nobody there is a matter of time; a prompt too long for all is the client's."""
    with pytest.raises(CapacityError, match="no worker of"):
        choose_route(LONG, snapshot(), ROUTING)
    with pytest.raises(CapacityError, match="no decode worker"):
        choose_route(LONG, snapshot(a_worker("p", Role.PREFILL)), ROUTING)
    with pytest.raises(ContextOverflow, match="the workers hold 100"):
        choose_route(LONG, snapshot(a_worker("b", Role.BOTH, context=100)), ROUTING)


@given(
    roles=st.lists(st.sampled_from(Role), max_size=5),
    loads=st.lists(st.integers(0, 1000), min_size=5, max_size=5),
    contexts=st.lists(st.sampled_from([50, 32768]), min_size=5, max_size=5),
    forced=st.sampled_from([None, *RouteKind]),
    excluded=st.sets(st.integers(0, 4)),
    long=st.booleans(),
)
def test_any_snapshot_gives_a_live_route_or_a_refusal(
    roles: list[Role], loads: list[int], contexts: list[int], forced: RouteKind | None, excluded: set[int], long: bool
) -> None:
    """Never an exception of another kind, never a worker in the wrong role, never one worker for both legs."""
    workers = [
        a_worker(str(i), role, load, 0, context)
        for i, (role, load, context) in enumerate(zip(roles, loads, contexts, strict=False))
    ]
    request = LONG if long else SHORT
    try:
        route = choose_route(request, snapshot(*workers), ROUTING, forced, {WorkerId(str(i)) for i in excluded})
    except TwinferError:
        return
    by_name = {state.identity.worker: state.identity for state in workers}
    assert by_name[route.decode].role.decodes
    assert len(request.prompt) < by_name[route.decode].capabilities.max_context_tokens
    assert route.reason
    if route.prefill is not None:
        assert by_name[route.prefill].role.prefills
        assert route.prefill != route.decode


def test_models_do_not_mix() -> None:
    """A request goes to workers of its own model only."""
    other = msgspec.structs.replace(LONG, model=ModelId("other"))
    with pytest.raises(CapacityError, match="no worker of other"):
        choose_route(other, PAIR, ROUTING)


def ends(route: Route) -> tuple[str, str | None]:
    """The two workers of a route."""
    return route.decode, route.prefill


def test_answers_to_a_schema_go_where_they_can_be_held_to_it() -> None:
    """Prefill and decode alike, for both draw; where nobody can, that is said at once."""
    asked = msgspec.structs.replace(LONG, grammar=Grammar("start: /a/", (1,)))
    free = (a_worker("p0", Role.PREFILL), a_worker("d0", Role.DECODE))
    able = tuple(
        msgspec.structs.replace(
            state,
            identity=msgspec.structs.replace(
                state.identity, capabilities=msgspec.structs.replace(state.identity.capabilities, grammars=True)
            ),
        )
        for state in (a_worker("p1", Role.PREFILL, waiting_tokens=99), a_worker("d1", Role.DECODE, in_flight=9))
    )
    route = choose_route(asked, snapshot(*free, *able), ROUTING)
    assert ("d1", "p1") == (route.decode, route.prefill)
    with pytest.raises(InvalidRequest, match="ask for plain text"):
        choose_route(asked, snapshot(*free), ROUTING)
