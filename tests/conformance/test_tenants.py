"""What one tenant left is found by that tenant again, and by no other: in every place in which KV is kept or known of.

And where memory changes hands, nothing of the former tenant stays within reach of the next one.
"""

from collections.abc import Callable
from contextlib import closing

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.conformance.pair import Member, Pair, emulated, emulated_pool, inproc_ways, make_pair
from tests.fakes import KEY, a_request
from twinfer.core.grant import Use
from twinfer.core.ids import RequestId
from twinfer.core.messages import Granted, Lend, Refused
from twinfer.core.request import GenerationRequest, Pin
from twinfer.router.prefix_index import PrefixIndex
from twinfer.transport.inproc import InprocHub

PROMPT = [(37 * index) % 991 for index in range(200)]
FLOOD = [(53 * index) % 983 for index in range(1320)]
"""Leaves room in the pool for little else."""
MARK = 0xA5
"""No element that an emulated engine writes has such a byte twice in a row."""

Found = Callable[[Pair, str], int]


def asking(tenant: str, name: str, prompt: list[int] = PROMPT) -> GenerationRequest:
    """The same prompt, whoever asks."""
    return a_request(prompt, 4, f"{name} of {tenant}", tenant)


def cached(member: Member) -> int:
    """Prompt positions that a worker found and did not compute, so far."""
    return member.reception.load(healthy=True).counters.cached_tokens


def in_the_pool(pair: Pair, tenant: str) -> int:
    """A worker that computes both phases."""
    pair.generate(asking("acme", "first"))
    pair.generate(asking(tenant, "second"))
    return cached(pair.sink)


def where_it_was_computed(pair: Pair, tenant: str) -> int:
    """The source of a handoff keeps what it passed on."""
    pair.hand_over(asking("acme", "first"))
    pair.generate(asking(tenant, "second"), member=pair.source)
    return cached(pair.source)


def where_it_was_passed_to(pair: Pair, tenant: str) -> int:
    """The sink of a handoff keeps what came, and is asked for it before the next one."""
    pair.hand_over(asking("acme", "first"))
    _, had = pair.hand_over(asking(tenant, "second"))
    return had


def on_another_worker(pair: Pair, tenant: str) -> int:
    """A prefix that is to be fetched."""
    pair.generate(asking("acme", "first"), member=pair.source)
    request = asking(tenant, "fetch", PROMPT[:192])
    granted = pair.reserve(request, use=Use.CACHE)
    assert isinstance(granted, Granted)
    pair.source.reception.take(Lend(request, granted.grant), pair.gateway, pair)
    refused = [message for message in pair.gateway.said if isinstance(message, Refused)]
    pair.gateway.said.clear()
    pair.settle()
    assert bool(refused) == (tenant != "acme")
    return pair.sink.reception.load(healthy=True).counters.fetched_tokens


def after_it_was_fetched(pair: Pair, tenant: str) -> int:
    """The worker that fetched it."""
    pair.generate(asking("acme", "first"), member=pair.source)
    pair.fetch(asking("acme", "fetch", PROMPT[:192]))
    pair.generate(asking(tenant, "second"))
    return cached(pair.sink)


def behind_a_cache_point(pair: Pair, tenant: str) -> int:
    """What is pinned stays while all else gives way."""
    pinned = msgspec.structs.replace(asking("acme", "first"), pins=(Pin(192, 300.0),))
    pair.generate(pinned)
    pair.generate(asking("flood", "between", FLOOD))
    before = cached(pair.sink)
    asked = asking(tenant, "second")
    pair.generate(msgspec.structs.replace(asked, pins=(Pin(192, 300.0),)))
    return cached(pair.sink) - before


def in_the_gateway_s_index(pair: Pair, tenant: str) -> int:
    """What the router believes that a worker has."""
    pair.generate(asking("acme", "first"))
    index, worker = PrefixIndex(KEY), pair.sink.identity
    index.met(worker)
    assert index.apply(worker.worker, pair.sink.engine.block_events(-1))
    return index.hits(asking(tenant, "second")).get(worker.worker, 0)


TIERS: tuple[Found, ...] = (
    in_the_pool,
    where_it_was_computed,
    where_it_was_passed_to,
    on_another_worker,
    after_it_was_fetched,
    behind_a_cache_point,
    in_the_gateway_s_index,
)
"""Every place; a tier that is added to the product gets its line here."""


def a_pair(source: int = 16, sink: int = 16) -> Pair:
    """Two emulated workers with so many tokens in a block, and no memory of anybody."""
    return make_pair(emulated, (emulated_pool(source, "fp32"), emulated_pool(sink, "fp32")), inproc_ways(InprocHub()))


@pytest.mark.parametrize("found", TIERS, ids=[tier.__name__ for tier in TIERS])
def test_the_same_tenant_hits_and_another_misses(found: Found) -> None:
    """The very same tokens, asked for in the very same way: only the tenant differs."""
    hits = {}
    for tenant in ("acme", "beta"):
        with closing(a_pair()) as pair:
            hits[tenant] = found(pair, tenant)
            pair.cancel(RequestId(f"fetch of {tenant}"))
            pair.assert_idle()
    assert hits == {"acme": 192, "beta": 0}


@settings(max_examples=30, deadline=None)
@given(
    sizes=st.tuples(st.sampled_from([8, 16, 24]), st.sampled_from([8, 16, 24])),
    lengths=st.lists(st.tuples(st.integers(1, 60), st.integers(2, 20)), min_size=1, max_size=3),
)
def test_what_arrives_brings_and_leaves_nothing_of_others(
    sizes: tuple[int, int], lengths: list[tuple[int, int]]
) -> None:
    """Both pools are full of another tenant's bytes: in no block that a handoff or its answer maps is one left."""
    with closing(a_pair(*sizes)) as pair:
        for member in (pair.source, pair.sink):
            member.memory.view[:] = bytes([MARK]) * len(member.memory.view)
        for number, (num_tokens, max_tokens) in enumerate(lengths):
            pair.hand_over(a_request([number + 1] * num_tokens, max_tokens, str(number), "beta"))
        for member in (pair.source, pair.sink):
            size, num_blocks = member.memory.block_bytes, member.memory.num_blocks
            blocks = [bytes(member.memory.view[start : start + size]) for start in range(0, size * num_blocks, size)]
            mapped = [block for block in blocks if block != bytes([MARK]) * size]
            assert mapped
            assert [block for block in mapped if bytes([MARK, MARK]) in block] == []
