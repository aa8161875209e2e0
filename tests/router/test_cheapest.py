"""Routes by cost: the cheapest that holds the goals, whatever the snapshot."""

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fakes import MODEL, POOL, a_request
from tests.router.test_policy import with_weights
from twinfer.core.capabilities import Role, WorkerIdentity
from twinfer.core.config import RoutingConfig
from twinfer.core.cost import Backlog, LinkCost, StepCost
from twinfer.core.errors import TwinferError
from twinfer.core.ids import Epoch, WorkerId
from twinfer.core.load import BlockCounts, Counters, LoadReport
from twinfer.core.route import Route, RouteKind
from twinfer.core.service import Tier
from twinfer.core.snapshot import ClusterSnapshot, WorkerState
from twinfer.engine.assemble import emulated_capabilities
from twinfer.router.policy import choose_route, fetch_threshold, foreseen_s

CAPABILITIES = emulated_capabilities(MODEL, POOL)
ROUTING = RoutingConfig(policy="cost", ttft_goal_ms=1000, tpot_goal_ms=50)
STEPS = StepCost(0.005, 0.0001, 0.0, 0.0001, 1e-8)
FAST = LinkCost(0.001, 1e-10)


def a_worker(name: str, role: Role, **facts: object) -> WorkerState:
    """A live worker that computes ten thousand prompt positions a second; facts are of its load or its state."""
    load_facts = {key: value for key, value in facts.items() if key in LoadReport.__struct_fields__}
    cost = facts.pop("cost", STEPS)
    state_facts = {key: value for key, value in facts.items() if key not in load_facts}
    load_facts.pop("cost", None)
    identity = WorkerIdentity(WorkerId(name), Epoch("e"), role, CAPABILITIES, f"unix:/{name}")
    load_facts.setdefault("blocks", BlockCounts(4000, 4000, 0, 0))
    load = LoadReport(counters=Counters(), **load_facts)  # type: ignore[arg-type]
    state_facts.setdefault("ahead", load.backlog)
    return msgspec.structs.replace(WorkerState(identity, load, cost=cost), **state_facts)  # type: ignore[arg-type]


def route(num_tokens: int, *workers: WorkerState, forced: RouteKind | None = None, **hits: int) -> Route:
    """Of a prompt of that length."""
    found = {WorkerId(name): tokens for name, tokens in hits.items()}
    return choose_route(a_request([1] * num_tokens), ClusterSnapshot(workers), ROUTING, forced, (), found)


def ends(chosen: Route) -> tuple[str, str | None]:
    """The two workers."""
    return (chosen.decode, chosen.prefill)


BUSY = a_worker("d", Role.DECODE, decode_rows=32, decode_context=64_000, answering=32)
IDLE = a_worker("d", Role.DECODE)
P = a_worker("p", Role.PREFILL)


def test_a_prompt_beside_running_streams_goes_elsewhere() -> None:
    """It would hold them up; with nobody there a handoff gains nothing."""
    assert ends(route(3000, BUSY, P)) == ("d", "p")
    assert ends(route(3000, IDLE, P)) == ("d", None)


def test_a_hit_on_the_decode_worker_cancels_the_remote_prefill() -> None:
    """What is left of the prompt is not worth a handoff."""
    assert ends(route(3000, BUSY, P, d=2990)) == ("d", None)


def test_a_hit_decides_between_prefill_workers() -> None:
    """The one that has most of the prompt."""
    assert ends(route(3000, BUSY, P, a_worker("q", Role.PREFILL), q=2000)) == ("d", "q")


def test_a_thin_link_keeps_a_prompt_where_it_is() -> None:
    """Two seconds of transfer are worse than holding others up."""
    thin = {WorkerId("p"): LinkCost(2.0, 1e-6)}
    assert ends(route(3000, msgspec.structs.replace(BUSY, links=thin), P)) == ("d", None)


def test_kv_of_the_last_step_has_to_be_waited_for() -> None:
    """A quick answer does not make up for it; what earlier steps computed is there by then."""
    link = {WorkerId("p"): LinkCost(0.0, 2e-8)}
    size = CAPABILITIES.layout.token_bytes
    whole, half = (
        route(2000, msgspec.structs.replace(BUSY, links=link), msgspec.structs.replace(P, cost=cost)).estimate
        for cost in (
            msgspec.structs.replace(STEPS, chunk_tokens=2000),
            msgspec.structs.replace(STEPS, chunk_tokens=1000),
        )
    )
    assert whole is not None
    assert half is not None
    gained = 1000 * size * 2e-8 / ClusterSnapshot(()).answers.mean
    assert abs(whole.tpot_s - half.tpot_s - gained) < 1e-9


def test_a_long_queue_on_the_prefill_worker_is_gone_round() -> None:
    """By computing where the answer is made, or at another prefill worker."""
    queued = a_worker("p", Role.PREFILL, backlog=Backlog(60_000, 0.0))
    assert ends(route(3000, BUSY, queued)) == ("d", None)
    assert ends(route(3000, BUSY, queued, a_worker("q", Role.PREFILL))) == ("d", "q")


def foreseen(tier: Tier, *workers: WorkerState, routing: RoutingConfig = ROUTING) -> float | None:
    """When a prompt of a thousand tokens has its first token."""
    request = msgspec.structs.replace(a_request([1] * 1000), tier=tier)
    return foreseen_s(request, ClusterSnapshot(workers), routing)


def test_those_that_come_later_do_not_count() -> None:
    """A second of work of worse tiers before it is none to a better one."""
    second, none = Backlog(10_000, 0.0), Backlog()
    by_rank = (none, none, none, second)
    idle = foreseen(Tier.PRIORITY, IDLE)
    assert idle is not None
    queued = a_worker("d", Role.DECODE, ahead=second, ahead_before=by_rank)
    urgent, flex = foreseen(Tier.PRIORITY, queued), foreseen(Tier.FLEX, queued)
    assert (pytest.approx(idle, abs=0.01), pytest.approx(idle + 1.1, abs=0.1)) == (urgent, flex)


def test_what_flex_holds_is_room_for_an_urgent_one() -> None:
    """Others wait until answers there have ended."""
    full = a_worker("d", Role.DECODE, blocks=BlockCounts(4000, 0, 0, 4000), yielding_blocks=4000)
    idle, urgent, other = foreseen(Tier.PRIORITY, IDLE), foreseen(Tier.RESERVED, full), foreseen(Tier.DEFAULT, full)
    assert idle is not None
    assert other is not None
    assert (idle, True) == (urgent, other > idle)


def waits(free: int, promised: int, **facts: object) -> tuple[float, float]:
    """Of a short prompt for room among 32 answers, computed there and handed over; in times that an answer takes."""
    roomy = a_worker("d", Role.DECODE, running=32, decode_rows=32, decode_context=64_000, answering=32, **facts)
    blocks = BlockCounts(4000, free, 0, 4000 - free, promised=promised)
    full = msgspec.structs.replace(roomy, load=msgspec.structs.replace(roomy.load, blocks=blocks))
    mean = ClusterSnapshot(()).answers.mean
    answer_s = mean * STEPS.decode_s(33, 64_000 + 100 + mean / 2)
    found = []
    for kind in RouteKind:
        at_once, later = (route(100, worker, P, forced=kind).estimate for worker in (roomy, full))
        assert at_once is not None
        assert later is not None
        found.append((later.ttft_s - at_once.ttft_s) / answer_s)
    return found[0], found[1]


def test_a_prompt_in_the_queue_leaves_a_block_for_each_that_runs() -> None:
    """One that is handed over takes the last; in the queue it waits until so many of those held are free."""
    size = CAPABILITIES.layout.block_tokens
    missing = (100 + ClusterSnapshot(()).answers.mean) / size + 32 - 80
    assert (0.0, 0.0) == waits(free=110, promised=0)
    assert pytest.approx((missing / 3920, 0.0)) == waits(free=80, promised=0)
    before = Backlog(2 * size)
    assert pytest.approx(((missing + 2) / 3920, 0.0)) == waits(
        free=80, promised=0, waiting_tokens=before.tokens, backlog=before
    )


def test_what_becomes_free_goes_to_handoffs_first() -> None:
    """In the queue it waits until the answers of now have ended, and so it is handed over instead."""
    assert pytest.approx((1.0, 0.0)) == waits(free=110, promised=30)
    blocks = BlockCounts(4000, 110, 0, 3890, promised=30)
    full = a_worker("d", Role.DECODE, running=32, decode_rows=32, decode_context=64_000, answering=32, blocks=blocks)
    queued = a_worker("p", Role.PREFILL, backlog=Backlog(5_000))
    assert (("d", None), ("d", "p")) == (ends(route(100, BUSY, queued)), ends(route(100, full, queued)))


def test_foreseen_is_what_costs_say_under_any_policy() -> None:
    """And nothing where no costs are known, or nobody is there."""
    other = msgspec.structs.replace(ROUTING, policy="threshold")
    assert foreseen(Tier.DEFAULT, BUSY, P) == foreseen(Tier.DEFAULT, BUSY, P, routing=other) is not None
    assert foreseen(Tier.DEFAULT, a_worker("d", Role.DECODE, cost=None)) is None
    assert foreseen(Tier.DEFAULT) is None


def test_a_slow_worker_is_avoided() -> None:
    """On either side."""
    slow = msgspec.structs.replace(STEPS, pace=10.0)
    assert ends(route(3000, BUSY, a_worker("a", Role.PREFILL, cost=slow), P)) == ("d", "p")
    assert ends(route(3000, a_worker("a", Role.DECODE, cost=slow), IDLE))[0] == "d"


def test_one_gives_way_to_several() -> None:
    """It would be in time where forty answers are, and late where none is: it is the only late one."""
    crowd = a_worker("d", Role.DECODE, decode_rows=40, decode_context=80_000, answering=40, prefill_share=0.75)
    queued = a_worker("p", Role.PREFILL, ahead=Backlog(10_000, 0.0))
    chosen = route(5000, crowd, queued)
    assert ends(chosen) == ("d", "p")
    assert chosen.estimate is not None
    assert chosen.instead is not None
    assert (False, True) == (chosen.estimate.ttft_s <= 1.0, chosen.instead.ttft_s <= 1.0)


def test_only_what_holds_the_goals_is_cheap() -> None:
    """And it is said what else there was, and at which cost."""
    chosen = route(3000, BUSY, P)
    assert chosen.estimate is not None
    assert chosen.estimate.holds
    assert chosen.instead is not None
    assert chosen.instead.prefill is None
    assert chosen.instead.cost > chosen.estimate.cost


def test_under_overload_the_lowest_cost_is_taken() -> None:
    """Nothing holds the goals, and that is said."""
    late = Backlog(100_000, 0.0)
    chosen = route(3000, msgspec.structs.replace(BUSY, ahead=late), a_worker("p", Role.PREFILL, backlog=late))
    assert chosen.estimate is not None
    assert not chosen.estimate.holds
    assert "neither holds" in chosen.reason or "too little" in chosen.reason


def test_without_costs_the_length_decides() -> None:
    """As the threshold policy does."""
    workers = (a_worker("d", Role.DECODE, cost=None), a_worker("p", Role.PREFILL, cost=None))
    assert ends(route(100, *workers)) == ("d", "p")
    assert ends(route(10, *workers)) == ("d", None)


def test_fixed_policies() -> None:
    """Always the one, or always the other."""
    request, cluster = a_request([1] * 10), ClusterSnapshot((IDLE, P))
    assert ends(choose_route(request, cluster, RoutingConfig(policy="aggregated"))) == ("d", None)
    assert ends(choose_route(request, cluster, RoutingConfig(policy="disaggregated"))) == ("d", "p")


def test_a_forced_route_takes_the_cheapest_of_its_kind() -> None:
    """Though the other kind costs less."""
    assert ends(route(3000, IDLE, P, forced=RouteKind.DISAGGREGATED)) == ("d", "p")
    assert ends(route(3000, BUSY, P, forced=RouteKind.AGGREGATED)) == ("d", None)


def test_a_fetch_pays_where_the_link_beats_the_device() -> None:
    """From as many tokens on as make up for the link's fixed time; never over a link slower than computing."""
    split, threshold = route(3000, BUSY, P), RoutingConfig(policy="cost", min_fetch_tokens=128)
    near = msgspec.structs.replace(P, links={WorkerId("d"): LinkCost(0.01, 0.0)})
    assert fetch_threshold(split, ClusterSnapshot((BUSY, near)), threshold) == 101
    far = msgspec.structs.replace(P, links={WorkerId("d"): LinkCost(0.01, 1.0)})
    assert fetch_threshold(split, ClusterSnapshot((BUSY, far)), threshold) == 0


def test_what_a_step_hides_holds_nobody_up() -> None:
    """A prompt stays beside answers, rather than wait elsewhere, where most of it goes on while these are read."""
    found = []
    for hides in (0.0, 0.9):
        cost = msgspec.structs.replace(STEPS, token_s=1.5e-5, hides=hides)
        near = a_worker("d", Role.DECODE, decode_rows=32, decode_context=64_000, answering=32, cost=cost)
        found.append(ends(route(1000, near, a_worker("p", Role.PREFILL, cost=cost, backlog=Backlog(1000)))))
    assert [("d", "p"), ("d", None)] == found


COSTS = st.none() | st.builds(
    StepCost,
    *[st.floats(0, 1)] * 5,
    pace=st.floats(1e-3, 1e3),
    chunk_tokens=st.integers(1, 4096),
    hides=st.floats(0, 1),
)
WORKERS = st.builds(
    lambda role, cost, rows, tokens, waiting, free, promised, share, link: {
        "role": role,
        "cost": cost,
        "running": rows,
        "decode_rows": rows,
        "answering": rows,
        "decode_context": rows * 100,
        "backlog": Backlog(tokens, float(tokens)),
        "waiting_tokens": min(waiting, tokens),
        "blocks": BlockCounts(4000, free, 0, 4000 - free, promised=min(promised, free)),
        "prefill_share": share,
        "links": {WorkerId("w0"): link},
    },
    st.sampled_from(Role),
    COSTS,
    st.integers(0, 500),
    st.integers(0, 10**6),
    st.integers(0, 10**6),
    st.integers(0, 4000),
    st.integers(0, 4000),
    st.floats(0, 1),
    st.builds(LinkCost, st.floats(0, 10), st.floats(0, 1), st.floats(1e-3, 1e3)),
)
PAIRS = st.sets(st.tuples(st.integers(0, 5), st.integers(0, 5)), max_size=12)


@settings(max_examples=200, deadline=None)
@given(
    facts=st.lists(WORKERS, max_size=6),
    apart=PAIRS,
    mismatched=PAIRS,
    excluded=st.sets(st.integers(0, 5)),
    forced=st.none() | st.sampled_from(RouteKind),
    policy=st.sampled_from(["cost", "threshold", "aggregated", "disaggregated"]),
    weights=st.lists(st.sampled_from(["old", "new"]), min_size=6, max_size=6),
    num_tokens=st.integers(1, 5000),
)
def test_any_snapshot_gives_a_valid_route_or_a_refusal(
    facts: list[dict[str, object]],
    apart: set[tuple[int, int]],
    mismatched: set[tuple[int, int]],
    excluded: set[int],
    forced: RouteKind | None,
    policy: str,
    weights: list[str],
    num_tokens: int,
) -> None:
    """Workers that are there, that can do their part, and that can pass KV to each other; or an error that says why."""

    def pairs(found: set[tuple[int, int]]) -> frozenset[tuple[WorkerId, WorkerId]]:
        return frozenset((WorkerId(f"w{a}"), WorkerId(f"w{b}")) for a, b in found)

    made = (a_worker(f"w{n}", **one) for n, one in enumerate(facts))  # type: ignore[arg-type]
    workers = tuple(map(with_weights, made, weights))
    cluster = ClusterSnapshot(workers, pairs(mismatched), pairs(apart))
    routing = RoutingConfig(policy=policy)  # type: ignore[arg-type]
    out = {WorkerId(f"w{n}") for n in excluded}
    try:
        chosen = choose_route(a_request([1] * num_tokens), cluster, routing, forced, out, {WorkerId("w0"): 16})
    except TwinferError:
        return
    by_name = {state.identity.worker: state.identity for state in workers}
    assert by_name[chosen.decode].role.decodes
    if chosen.prefill is not None:
        assert by_name[chosen.prefill].role.prefills
        assert chosen.prefill != chosen.decode
        assert (chosen.prefill, chosen.decode) not in cluster.mismatched
        source, sink = by_name[chosen.prefill].capabilities, by_name[chosen.decode].capabilities
        assert source.fingerprint == sink.fingerprint
    if forced is not None:
        assert chosen.kind is forced
    assert fetch_threshold(chosen, cluster, routing) >= 0
