"""When workers change their role: loads over time, with a clock made up here."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.router.test_policy import a_worker, with_weights
from twinfer.core.capabilities import Role
from twinfer.core.config import ElasticConfig, RoutingConfig
from twinfer.core.cost import NO_WORK, Backlog, StepCost
from twinfer.core.ids import WorkerId
from twinfer.core.load import BlockCounts, Counters, LoadReport
from twinfer.core.snapshot import WorkerState
from twinfer.router.elastic import ElasticPolicy, Pressure

CONFIG = ElasticConfig(prefill_tokens=100, decode_requests=10, window_s=2.0, cooldown_s=10.0)
STEP_S = 0.5
P, D = Role.PREFILL, Role.DECODE


def under(role: Role, index: int, tokens: int = 0, running: int = 0) -> WorkerState:
    """A worker with so many prompt tokens waiting and so many answers under way."""
    load = LoadReport(BlockCounts(1, 1, 0, 0), Counters(), running=running, waiting_tokens=tokens)
    state = a_worker(f"w{index}", role)
    return WorkerState(state.identity, load)


def fleet(roles: list[Role], tokens: int, running: int) -> list[WorkerState]:
    """Workers of these roles, with this load on each that has the phase."""
    return [
        under(role, index, tokens if role.prefills else 0, running if role.decodes else 0)
        for index, role in enumerate(roles)
    ]


def wishes(policy: ElasticPolicy, states: list[WorkerState], start: float, seconds: float):
    """Time, worker and role of what is wished while the load stays the same."""
    found = []
    for index in range(int(seconds / STEP_S) + 1):
        now = start + index * STEP_S
        if wish := policy.see(states, now):
            found.append((now, wish.worker, wish.role))
    return found


def test_moves_to_the_phase_that_waits():
    """After a window, one worker of the phase that would bear it; the next not before the cool-down is over."""
    for tokens, running, expected in ((200, 1, ("w2", P)), (1, 20, ("w0", D))):
        found = wishes(ElasticPolicy(CONFIG), fleet([P, P, D, D], tokens, running), 0.0, 13.0)
        assert found == [(2.0, *expected), (12.0, *expected)]


def test_stays_within_the_band():
    """Nothing moves when both phases are loaded, when none is, and when the giver would not bear it."""
    for tokens, running in ((200, 20), (79, 7), (10, 1), (200, 9)):
        assert wishes(ElasticPolicy(CONFIG), fleet([P, P, D, D], tokens, running), 0.0, 30.0) == []


def test_last_of_a_phase():
    """The only worker of a phase stays, unless one of both phases takes its place."""
    assert wishes(ElasticPolicy(CONFIG), fleet([P, D], 500, 0), 0.0, 5.0) == []
    assert wishes(ElasticPolicy(CONFIG), fleet([P, D, Role.BOTH], 500, 0), 0.0, 2.0) == [(2.0, "w1", P)]


def test_two_kinds_of_weights():
    """While weights are being changed nobody moves, whatever waits: the workers cannot stand in for each other."""
    states = fleet([P, D, D], 0, 0)
    waiting = fleet([P, D, D], 1000, 0)
    assert wishes(ElasticPolicy(CONFIG), waiting, 0.0, 5.0) != []
    mixed = [*waiting[:2], with_weights(states[2], "new")]
    assert wishes(ElasticPolicy(CONFIG), mixed, 0.0, 5.0) == []


def test_a_moment_is_no_reason():
    """A peak of less than the window moves nobody."""
    policy = ElasticPolicy(CONFIG)
    calm, peak = fleet([P, P, D, D], 0, 1), fleet([P, P, D, D], 150, 1)
    assert wishes(policy, calm, 0.0, 4.0) + wishes(policy, peak, 4.5, 0.5) + wishes(policy, calm, 5.5, 4.0) == []


states = st.lists(
    st.builds(under, st.sampled_from(Role), st.integers(0, 9), st.integers(0, 10**6), st.integers(0, 1000)),
    max_size=10,
    unique_by=lambda state: state.identity.worker,
)


@given(st.lists(st.tuples(states, st.floats(0, 5)), max_size=20))
def test_any_load(history):
    """Whatever is reported, a wish names a live worker and another role, and each phase keeps one; two are apart."""
    policy, now, last = ElasticPolicy(CONFIG), 0.0, float("-inf")
    for seen, pause_s in history:
        now += pause_s
        wish = policy.see(seen, now)
        if wish is None:
            continue
        roles: dict[WorkerId, Role] = {state.identity.worker: state.identity.role for state in seen}
        assert roles[wish.worker] not in (wish.role, Role.BOTH)
        roles[wish.worker] = wish.role
        assert any(role.prefills for role in roles.values())
        assert any(role.decodes for role in roles.values())
        assert now - last >= CONFIG.cooldown_s
        last = now


def test_pressure():
    """By worker that serves the phase, over what is configured as much."""
    assert Pressure(1.0, 0.5, 2.0, float("inf")) == Pressure.of(fleet([P, P, D], 100, 5), CONFIG)


COST = StepCost(0.005, 1e-5, 0.0, 1e-4, 1e-7)
GOALS = RoutingConfig(ttft_goal_ms=1000.0, tpot_goal_ms=20.0)


def measured(role: Role, index: int, share: float, rows: int) -> WorkerState:
    """A worker that reports costs, with so much prefill work lately, 1,000 positions that wait, and so many rows."""
    state = a_worker(f"w{index}", role)
    backlog = Backlog(1000, 0.0) if role.prefills else NO_WORK
    load = LoadReport(
        BlockCounts(100, 75, 0, 25), Counters(), running=rows, backlog=backlog, decode_context=rows * 1000
    )
    return WorkerState(state.identity, load, cost=COST, prefill_share=share)


def test_measured_pressure():
    """Shares of time and seconds of waiting over their goal; a step over its goal, as it would be with fewer."""
    found = Pressure.of([measured(P, 0, 0.5, 0), measured(D, 1, 0.0, 50), measured(D, 2, 0.0, 50)], CONFIG, GOALS)
    assert pytest.approx(0.5 + 0.01) == found.prefill
    assert pytest.approx((0.005 + 50e-4 + 50_000e-7) / 0.02) == found.decode
    assert pytest.approx((0.005 + 100e-4 + 100_000e-7) / 0.02) == found.decode_without
    full = Pressure.of([measured(P, 0, 0.5, 0), measured(D, 1, 0.0, 0)], CONFIG, GOALS)
    assert 0.25 == full.decode


@given(st.integers(1, 7), st.floats(0.0, 20.0), st.integers(0, 2000), st.floats(0.0, 1.0))
def test_no_flapping(prefill, share, rows, bearable):
    """Under a load that stays, shared by whoever serves the phase, workers move in one direction, and then no more."""
    config = ElasticConfig(bearable=min(max(bearable, 0.01), 0.99), window_s=1.0, cooldown_s=2.0)
    policy, roles, turns = ElasticPolicy(config, GOALS), [P] * prefill + [D] * (8 - prefill), []
    for step in range(60):
        num_prefill = roles.count(P)
        states = [
            measured(role, index, share / num_prefill if role is P else 0.0, rows // (8 - num_prefill) * (role is D))
            for index, role in enumerate(roles)
        ]
        wish = policy.see(states, step * STEP_S)
        if wish is not None:
            roles[int(wish.worker[1:])] = wish.role
            turns.append(wish.role)
    assert len(set(turns)) <= 1
    assert len(turns) <= 6
