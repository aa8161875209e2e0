"""When workers change their role: loads over time, with a clock made up here."""

from hypothesis import given
from hypothesis import strategies as st

from tests.router.test_policy import a_worker
from twinfer.core.capabilities import Role
from twinfer.core.config import ElasticConfig
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
    for tokens, running in ((200, 20), (99, 9), (10, 1), (200, 4)):
        assert wishes(ElasticPolicy(CONFIG), fleet([P, P, D, D], tokens, running), 0.0, 30.0) == []


def test_last_of_a_phase():
    """The only worker of a phase stays, unless one of both phases takes its place."""
    assert wishes(ElasticPolicy(CONFIG), fleet([P, D], 500, 0), 0.0, 5.0) == []
    assert wishes(ElasticPolicy(CONFIG), fleet([P, D, Role.BOTH], 500, 0), 0.0, 2.0) == [(2.0, "w1", P)]


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
    assert Pressure(1.0, 0.5) == Pressure.of(fleet([P, P, D], 100, 5), CONFIG)
