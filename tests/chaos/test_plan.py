"""Plans: the same for the same seed, even over kinds and roles, and within the bounds of the lease."""

from collections import Counter
from collections.abc import Collection

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twinfer.chaos.plan import GATEWAY, LONG, MAX_AFTER_S, SHORT, Event, Kind, make_plan
from twinfer.core.errors import ConfigError

TARGETS = {"prefill": ("prefill-0", "prefill-1"), "decode": ("decode-0", "decode-1"), GATEWAY: (GATEWAY,)}
LEASE_S = 4.0


def plan(num_events: int, seed: int = 0, kinds: Collection[Kind] = tuple(Kind)) -> tuple[Event, ...]:
    """For two pools."""
    return make_plan(TARGETS, LEASE_S, num_events, seed, kinds)


@given(seed=st.integers(0, 1000), num_events=st.integers(0, 60))
def test_a_seed_is_a_plan(seed: int, num_events: int) -> None:
    """As long as asked for, and again the same; a longer one begins like it."""
    assert plan(num_events, seed) == plan(num_events, seed)
    assert len(plan(num_events, seed)) == num_events


def test_seeds_differ() -> None:
    """Another seed is another plan."""
    assert plan(13, 1) != plan(13, 2)


def test_every_kind_befalls_every_role_equally_often() -> None:
    """A gateway has no partitions; one round has 13 events."""
    counts = Counter((event.kind, event.role) for event in plan(39))
    assert set(counts.values()) == {3}
    assert len(counts) == 13
    assert {kind for kind, role in counts if role == GATEWAY} == {Kind.KILL, Kind.PAUSE, Kind.LONG_PAUSE}


def test_a_plan_of_kills_only() -> None:
    """Every role gets its share, and nothing else happens."""
    counts = Counter((event.kind, event.role) for event in plan(30, kinds=[Kind.KILL]))
    assert counts == {(Kind.KILL, role): 10 for role in TARGETS}


def test_nothing_to_do_is_an_error() -> None:
    """A gateway alone cannot be partitioned."""
    with pytest.raises(ConfigError, match="choose other kinds with --only"):
        make_plan({GATEWAY: (GATEWAY,)}, LEASE_S, 1, 0, [Kind.PARTITION])


def test_targets_and_moments_are_within_bounds() -> None:
    """Every process gets its turn; long means that all leases end, short that none does."""
    events = plan(400)
    assert {event.target for event in events} == {name for names in TARGETS.values() for name in names}
    for event in events:
        assert event.target in TARGETS[event.role]
        assert 0 <= event.after_s <= MAX_AFTER_S
        leases = event.duration_s / LEASE_S
        if event.kind is Kind.KILL:
            assert leases == 0
        elif event.kind in (Kind.LONG_PAUSE, Kind.LONG_PARTITION):
            assert 1 < LONG[0] <= leases <= LONG[1]
        else:
            assert SHORT[0] <= leases <= SHORT[1] < 1
