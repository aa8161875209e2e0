"""The index of prefixes: what the workers' pools would find, with gaps noticed, and no tenant another's."""

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fakes import MODEL, POOL, a_request
from twinfer.core.block_events import BlockEvents
from twinfer.core.block_hash import BlockHasher
from twinfer.core.capabilities import Role, WorkerIdentity
from twinfer.core.ids import Epoch, TenantId, WorkerId
from twinfer.engine.assemble import emulated_capabilities
from twinfer.kv.block_pool import BlockPool
from twinfer.router.prefix_index import PrefixIndex

KEY = b"a key of a test's cluster"
CAPABILITIES = emulated_capabilities(MODEL, POOL)
SIZE = CAPABILITIES.layout.block_tokens
HASHER = BlockHasher(KEY, CAPABILITIES.fingerprint, CAPABILITIES.provenance, SIZE)
REQUEST = a_request([token % 50 for token in range(4 * SIZE)])
CHAIN = HASHER.chain(REQUEST.tenant, REQUEST.prompt)


def identity(name: str, epoch: str = "e") -> WorkerIdentity:
    """A start of a worker."""
    return WorkerIdentity(WorkerId(name), Epoch(epoch), Role.BOTH, CAPABILITIES, f"unix:/{name}")


def everything(*blocks: bytes, first: int = 0) -> BlockEvents:
    """All that a worker has."""
    return BlockEvents(first, b"".join(blocks), everything=True)


def an_index(**blocks: list[bytes]) -> PrefixIndex:
    """Of workers that have these."""
    index = PrefixIndex(KEY)
    for name, held in blocks.items():
        index.met(identity(name))
        assert index.apply(WorkerId(name), everything(*held))
    return index


def test_the_longest_run_from_the_first_block_counts() -> None:
    """A block after a missing one is of no use; and the last token is never a hit, for its logits are needed."""
    index = an_index(a=CHAIN[:3], b=[CHAIN[0], CHAIN[2]], c=CHAIN[1:], d=CHAIN)
    assert index.hits(REQUEST) == {"a": 3 * SIZE, "b": SIZE, "d": 4 * SIZE - 1}


def test_no_tenant_finds_anothers_blocks() -> None:
    """Nor does a request with another salt of the same tenant."""
    index = an_index(a=CHAIN)
    assert index.hits(msgspec.structs.replace(REQUEST, tenant=TenantId("someone else"))) == {}
    assert index.hits(msgspec.structs.replace(REQUEST, cache_salt="private")) == {}


def test_a_gap_empties_a_worker_until_it_tells_everything() -> None:
    """What comes meanwhile is not believed either."""
    index, worker = an_index(a=CHAIN), WorkerId("a")
    assert not index.apply(worker, BlockEvents(7, CHAIN[0], b"\0"))
    assert index.hits(REQUEST) == {}
    assert not index.apply(worker, BlockEvents(8, CHAIN[0], b"\0"))
    assert index.apply(worker, everything(*CHAIN[:2], first=9))
    assert index.apply(worker, BlockEvents(9, CHAIN[1], b"\1"))
    assert index.hits(REQUEST) == {"a": SIZE}


def test_events_that_are_not_sound_are_a_gap() -> None:
    """Half a hash, or more hashes than changes."""
    for events in (BlockEvents(0, CHAIN[0][:5], b"\0"), BlockEvents(0, CHAIN[0], b""), everything(b"half")):
        index = an_index(a=CHAIN)
        assert not index.apply(WorkerId("a"), events)
        assert index.hits(REQUEST) == {}


def test_another_start_of_a_worker_begins_with_nothing() -> None:
    """And one that is lost has nothing; of strangers nothing is kept."""
    index = an_index(a=CHAIN, b=CHAIN)
    index.met(identity("a", "another"))
    assert index.hits(REQUEST) == {"b": 4 * SIZE - 1}
    index.lost(WorkerId("b"))
    assert (index.hits(REQUEST), len(index)) == ({}, 0)
    assert index.apply(WorkerId("stranger"), everything(*CHAIN))
    assert len(index) == 0


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["store", "take", "tell", "lose"]), st.integers(0, len(CHAIN) - 1), st.sampled_from("ab")
    ),
    max_size=60,
)


@settings(max_examples=150, deadline=None)
@given(steps=STEPS)
def test_the_index_agrees_with_the_pools(steps: list[tuple[str, int, str]]) -> None:
    """Whatever is stored, evicted, told or lost on the way: hits are what the pools would match, once all was told."""
    index = PrefixIndex(KEY)
    pools = {name: BlockPool(3) for name in "ab"}
    told = dict.fromkeys("ab", -1)
    for name in pools:
        index.met(identity(name))

    def tell(name: str, *, arrives: bool = True) -> None:
        events = pools[name].events(told[name])
        told[name] = events.next
        if arrives and not index.apply(WorkerId(name), events):
            told[name] = -1

    for what, number, name in steps:
        pool = pools[name]
        if what == "store" and (blocks := pool.allocate(1)) is not None:
            pool.publish(blocks[0], CHAIN[number])
            pool.release(blocks)
        elif what == "take" and (blocks := pool.allocate(min(number, pool.num_available))) is not None:
            pool.release(blocks)
        elif what == "tell":
            tell(name)
        elif what == "lose":
            tell(name, arrives=False)
    for name in pools:
        for _ in range(3):
            tell(name)
    expected = {name: min(SIZE * pool.count_match(CHAIN), len(REQUEST.prompt) - 1) for name, pool in pools.items()}
    found = index.hits(REQUEST)
    for name, tokens in expected.items():
        assert found.get(WorkerId(name), 0) == tokens
