"""When workers change their role: loads over time, with a clock made up here."""

from hypothesis import given
from hypothesis import strategies as st

from tests.router.test_policy import a_worker, with_weights
from twinfer.core.capabilities import Role
from twinfer.core.config import ElasticConfig, RoutingConfig
from twinfer.core.cost import NO_WORK, Backlog, StepCost
from twinfer.core.ids import WorkerId
from twinfer.core.load import BlockCounts, Counters, LoadReport
from twinfer.core.snapshot import WorkerState
from twinfer.router.elastic import ElasticPolicy

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
        found += [(now, wish.worker, wish.role) for wish in policy.see(states, now)]
    return found


def test_moves_to_the_phase_that_waits():
    """After a window, one worker of the phase that would bear it; the next not before the cool-down is over."""
    for tokens, running, expected in ((200, 1, ("w2", P)), (1, 20, ("w0", D))):
        found = wishes(ElasticPolicy(CONFIG), fleet([P, P, D, D], tokens, running), 0.0, 13.0)
        assert found == [(2.0, *expected), (12.0, *expected)]


def test_moves_as_many_as_it_takes():
    """Several at once where that is best, those with the least to do; one more than it takes would press the others."""
    prompts = [under(P, 0, 500), *(under(D, index, running=5 - index) for index in range(1, 5))]
    assert wishes(ElasticPolicy(CONFIG), prompts, 0.0, 2.0) == [(2.0, "w4", P), (2.0, "w3", P), (2.0, "w2", P)]
    answers = [*(under(P, index, 20) for index in range(4)), under(D, 4, running=40)]
    assert wishes(ElasticPolicy(CONFIG), answers, 0.0, 2.0) == [(2.0, "w0", D), (2.0, "w1", D), (2.0, "w2", D)]
    both = [*(under(P, index, 100) for index in range(4)), under(D, 4, running=40)]
    assert wishes(ElasticPolicy(CONFIG), both, 0.0, 2.0) == [(2.0, "w0", D)]


def test_stays_within_the_band():
    """Nothing moves when both phases are loaded, when none is, and when the giver would not bear it."""
    for tokens, running in ((200, 20), (79, 7), (10, 1), (190, 9)):
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


def test_a_queue_that_gets_shorter_keeps_nobody():
    """Prompts that wait less and less, as after a turn of the load, leave as many workers as the answers need."""
    for tokens, expected in ((100, 2), (0, 0)):
        policy, found = ElasticPolicy(CONFIG), []
        for look in range(5):
            found += policy.see(fleet([P, P, P, D], 300 - tokens * look // 2, 20), look * STEP_S)
        assert [D] * expected == [wish.role for wish in found]


states = st.lists(
    st.builds(under, st.sampled_from(Role), st.integers(0, 9), st.integers(0, 10**6), st.integers(0, 1000)),
    max_size=10,
    unique_by=lambda state: state.identity.worker,
)


@given(st.lists(st.tuples(states, st.floats(0, 5)), max_size=20))
def test_any_load(history):
    """Whatever is reported, wishes name live workers and the other role, and each phase keeps one; then it is quiet."""
    policy, now, last = ElasticPolicy(CONFIG), 0.0, float("-inf")
    for seen, pause_s in history:
        now += pause_s
        found = policy.see(seen, now)
        if not found:
            continue
        roles: dict[WorkerId, Role] = {state.identity.worker: state.identity.role for state in seen}
        assert len(found) == len({wish.worker for wish in found})
        assert all(roles[wish.worker] not in (wish.role, Role.BOTH) for wish in found)
        roles |= {wish.worker: wish.role for wish in found}
        assert any(role.prefills for role in roles.values())
        assert any(role.decodes for role in roles.values())
        assert now - last >= CONFIG.cooldown_s
        last = now


COST = StepCost(0.005, 1e-5, 0.0, 1e-4, 1e-7)
GOALS = RoutingConfig(ttft_goal_ms=1000.0, tpot_goal_ms=20.0)


def measured(role: Role, index: int, computed: int, rows: int) -> WorkerState:
    """A worker that reports costs, so many positions of prompts computed so far, 1,000 that wait, and so many rows."""
    state = a_worker(f"w{index}", role)
    load = LoadReport(
        BlockCounts(100, 75, 0, 25),
        Counters(prefill_tokens=computed),
        running=rows,
        backlog=Backlog(1000, 0.0) if role.prefills else NO_WORK,
        decode_context=rows * 1000,
    )
    return WorkerState(state.identity, load, cost=COST)


@given(st.integers(1, 7), st.integers(0, 500_000), st.integers(0, 2000), st.floats(0.0, 1.0))
def test_no_flapping(prefill, tokens_per_s, rows, bearable):
    """Under a load that stays, shared by whoever serves the phase, workers move in one direction, and then no more."""
    config = ElasticConfig(bearable=min(max(bearable, 0.01), 0.99), window_s=1.0, cooldown_s=2.0)
    policy, roles, turns = ElasticPolicy(config, GOALS), [P] * prefill + [D] * (8 - prefill), []
    computed = [0.0] * 8
    for step in range(60):
        num_prefill = roles.count(P)
        for index, role in enumerate(roles):
            computed[index] += tokens_per_s * STEP_S / num_prefill * (role is P)
        states = [
            measured(role, index, int(computed[index]), rows // (8 - num_prefill) * (role is D))
            for index, role in enumerate(roles)
        ]
        for wish in policy.see(states, step * STEP_S):
            roles[int(wish.worker[1:])] = wish.role
            turns.append(wish.role)
    assert len(set(turns)) <= 1
    assert len(turns) <= 6


def test_prompts_that_come_count_at_once():
    """Prompts that come faster than they can be computed move workers after one window, before any of them wait."""
    policy, found = ElasticPolicy(ElasticConfig(window_s=1.0), GOALS), []
    for step in range(11):
        came = 150_000 * step // 10  # in a second, 3 worker-seconds of them
        found += policy.see([measured(P, 0, came, 0), *(measured(D, index, 0, 1) for index in range(1, 5))], step / 10)
    assert [P] * 2 == [wish.role for wish in found]
