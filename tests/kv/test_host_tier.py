"""The host tier under arbitrary use: nobody pushes out one who holds less, and what is read stays."""

from itertools import takewhile

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from twinfer.core.ids import TenantId
from twinfer.core.load import HostCounts
from twinfer.kv.block_log import BlockLog
from twinfer.kv.host_tier import HostHold, HostTier

FIRST, NUM_SLOTS, MAX_PER_TENANT = 100, 6, 4
A, B, C = (TenantId(name) for name in "abc")
TENANTS = st.sampled_from([A, B, C])


def name(tenant: TenantId, number: int) -> bytes:
    """A block of a tenant's; no two tenants' are the same."""
    return f"{tenant}{number}".encode().ljust(16)


class TierMachine(RuleBasedStateMachine):
    """Random storing, reading and losing of blocks, against a list of them in the order of their last use."""

    def __init__(self) -> None:
        super().__init__()
        self.log = BlockLog(1 << 16)
        self.tier = HostTier(FIRST, NUM_SLOTS, MAX_PER_TENANT, self.log)
        self.now = 0.0
        self.filling: dict[bytes, int] = {}
        self.kept: dict[bytes, int] = {}
        """Slots of what can be found, the least recently used first."""
        self.reading: list[tuple[HostHold, list[bytes], float]] = []

    def held(self) -> dict[int, bytes]:
        """What is being read, by slot."""
        return {slot: one for hold, names, _ in self.reading for slot, one in zip(hold.slots, names, strict=True)}

    def num_of(self, tenant: TenantId) -> int:
        """Slots of a tenant."""
        everything = {slot: one for one, slot in (self.kept | self.filling).items()} | self.held()
        return sum(one[:1] == tenant.encode() for one in everything.values())

    def idle(self, tenant: TenantId) -> list[bytes]:
        """A tenant's blocks that may go, the least recently used first."""
        held = self.held()
        return [one for one, slot in self.kept.items() if one[:1] == tenant.encode() and slot not in held]

    def may_give(self, tenant: TenantId) -> set[bytes]:
        """The blocks of which one must make room for one of this tenant's: the oldest of those who hold most."""
        own = self.num_of(tenant)
        givers = [one for one in (A, B, C) if self.idle(one) and (one == tenant or self.num_of(one) > own)]
        if own == MAX_PER_TENANT:
            givers = [one for one in givers if one == tenant]
        most = max(map(self.num_of, givers), default=0)
        return {self.idle(one)[0] for one in givers if self.num_of(one) == most}

    def use(self, one: bytes) -> None:
        """It is the last one used."""
        self.kept[one] = self.kept.pop(one)

    def let_go(self, hold: HostHold, names: list[bytes]) -> None:
        """A hold is over."""
        self.reading = [entry for entry in self.reading if entry[0] is not hold]
        held = self.held()
        for one, slot in reversed(list(zip(names, hold.slots, strict=True))):
            if self.kept.get(one) == slot and slot not in held:
                self.use(one)

    @rule(tenant=TENANTS, number=st.integers(0, 7))
    def reserve(self, tenant: TenantId, number: int) -> None:
        wanted = name(tenant, number)
        has_room = sum(map(self.num_of, (A, B, C))) < NUM_SLOTS and self.num_of(tenant) < MAX_PER_TENANT
        may_give = set() if has_room else self.may_give(tenant)
        slot = self.tier.reserve(wanted, tenant)
        if wanted in self.kept or wanted in self.filling:
            assert slot is None
            if wanted in self.idle(tenant):
                self.use(wanted)
        elif not has_room and not may_give:
            assert slot is None
        else:
            assert slot is not None
            assert slot not in self.held()
            evicted = {one for one, place in self.kept.items() if place == slot}
            assert evicted <= may_give
            assert len(evicted) == (not has_room)
            for one in evicted:
                del self.kept[one]
            self.filling[wanted] = slot

    @rule()
    @precondition(lambda self: self.filling)
    def fill(self) -> None:
        wanted = next(iter(self.filling))
        self.tier.fill(wanted, hash(wanted))
        self.kept[wanted] = self.filling.pop(wanted)

    @rule(tenant=TENANTS, first=st.integers(0, 7), num=st.integers(1, 3), ttl=st.integers(1, 3))
    def hold(self, tenant: TenantId, first: int, num: int, ttl: int) -> None:
        names = [name(tenant, number) for number in range(first, first + num)]
        here = list(takewhile(self.kept.__contains__, names))
        assert len(here) == self.tier.count_match(names)
        hold = self.tier.hold(names, self.now + ttl)
        assert (hold is None) == (not here)
        if hold is not None:
            assert tuple(self.kept[one] for one in here) == hold.slots
            assert tuple(map(hash, here)) == hold.digests
            self.reading.append((hold, here, self.now + ttl))

    @rule(index=st.integers(0, 3))
    @precondition(lambda self: self.reading)
    def release(self, index: int) -> None:
        hold, names, _ = self.reading[index % len(self.reading)]
        self.let_go(hold, names)
        self.tier.release(hold)
        self.tier.release(hold)

    @rule(index=st.integers(0, 3))
    @precondition(lambda self: self.reading)
    def discard(self, index: int) -> None:
        hold, names, _ = self.reading[index % len(self.reading)]
        self.tier.discard(hold, 0)
        if self.kept.get(names[0]) == hold.slots[0]:
            del self.kept[names[0]]

    @rule(passed=st.integers(1, 2))
    def wait(self, passed: int) -> None:
        self.now += passed
        self.tier.expire(self.now)
        for hold, names, until in list(self.reading):
            if until <= self.now:
                self.let_go(hold, names)

    @invariant()
    def what_is_read_stays(self) -> None:
        written = set(self.filling.values())
        assert written.isdisjoint(self.held())
        assert all(self.held().get(slot, one) == one for one, slot in self.kept.items())

    @invariant()
    def accounts_balance(self) -> None:
        counts, held = self.tier.counts(), self.held()
        assert NUM_SLOTS == counts.total == counts.free + counts.cached + counts.held + counts.filling
        assert (len(held), len(self.filling)) == (counts.held, counts.filling)
        assert sum(slot not in held for slot in self.kept.values()) == counts.cached
        for tenant in (A, B, C):
            assert self.num_of(tenant) == self.tier.num_of(tenant) <= MAX_PER_TENANT

    @invariant()
    def those_afar_know(self) -> None:
        told: set[bytes] = set()
        events = self.log.since(0)
        for block, gone in zip(events.blocks(), events.gone, strict=True):
            (told.discard if gone else told.add)(block)
        assert set(self.kept) == told


TestTier = TierMachine.TestCase
TestTier.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)


def a_tier(num_slots: int = 4, max_per_tenant: int = 4) -> HostTier:
    """An empty one."""
    return HostTier(FIRST, num_slots, max_per_tenant, BlockLog(64))


def store(tier: HostTier, tenant: TenantId, *numbers: int) -> list[int | None]:
    """Blocks of a tenant, one after the other; the slots they got."""
    slots: list[int | None] = []
    for number in numbers:
        slots.append(tier.reserve(name(tenant, number), tenant))
        if slots[-1] is not None:
            tier.fill(name(tenant, number), number)
    return slots


def resident(tier: HostTier, tenant: TenantId) -> set[int]:
    """Which of a tenant's first blocks are here."""
    return {number for number in range(16) if tier.count_match([name(tenant, number)])}


def test_least_recently_used_goes_first() -> None:
    """Storing a block again, or reading it, is a use; of a prefix, the last block goes first."""
    tier = a_tier()
    store(tier, A, 0, 1, 2, 3)
    assert store(tier, A, 0) == [None]
    hold = tier.hold([name(A, 1), name(A, 2)], 9.0)
    assert hold is not None
    tier.release(hold)
    store(tier, A, 4, 5, 6)
    assert resident(tier, A) == {1, 4, 5, 6}
    assert tier.num_evicted == 3


def test_a_greedy_tenant_leaves_others_their_part() -> None:
    """Whoever comes gets room from the one that holds most, up to equal parts, and none from who holds as many."""
    tier = a_tier()
    store(tier, A, *range(9))
    assert resident(tier, A) == {5, 6, 7, 8}
    store(tier, B, 0, 1, 2)
    assert (resident(tier, A), resident(tier, B)) == ({7, 8}, {1, 2})
    store(tier, A, *range(9, 16))
    assert (resident(tier, A), resident(tier, B)) == ({14, 15}, {1, 2})
    store(tier, C, 0)
    assert (len(resident(tier, A)), len(resident(tier, B)), len(resident(tier, C))) == (1, 2, 1)


def test_a_bound_of_its_own() -> None:
    """A tenant at its bound makes room for itself, even where there is some left."""
    tier = a_tier(num_slots=4, max_per_tenant=2)
    store(tier, A, 0, 1, 2)
    assert resident(tier, A) == {1, 2}
    assert HostCounts(total=4, free=2, cached=2) == tier.counts()


def test_nothing_is_stored_where_everything_is_being_read() -> None:
    """A hold keeps its slots, until its time is over."""
    tier = a_tier(num_slots=2)
    slots = store(tier, A, 0, 1)
    hold = tier.hold([name(A, 0), name(A, 1)], until=5.0)
    assert hold is not None
    assert store(tier, B, 0) == [None]
    before = tier.generations(hold.slots)
    tier.expire(4.9)
    assert store(tier, B, 0) == [None]
    tier.expire(5.0)
    assert store(tier, B, 0) == [slots[1]]
    assert [now - then for now, then in zip(tier.generations(hold.slots), before, strict=True)] == [0, 1]
    tier.release(hold)
    assert (resident(tier, A), resident(tier, B)) == ({0}, {0})


def test_what_is_being_written_is_not_found() -> None:
    """Rule R1: not before it is whole; and nobody else writes it meanwhile."""
    tier = a_tier()
    assert tier.reserve(name(A, 0), A) == FIRST
    assert tier.reserve(name(A, 0), A) is None
    assert tier.hold([name(A, 0)], 9.0) is None
    assert HostCounts(total=4, free=3, filling=1) == tier.counts()
    tier.fill(name(A, 0), 7)
    assert resident(tier, A) == {0}
