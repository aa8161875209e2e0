"""A prefix that one worker has cached and another fetches: right or not at all, and only ever for its tenant."""

from collections.abc import Sequence
from contextlib import closing
from itertools import product
from pathlib import Path

import msgspec
import pytest

from tests.conformance.pair import (
    EMULATION,
    Pair,
    emulated,
    emulated_pool,
    inproc_ways,
    make_pair,
    native_maker,
    real_ways,
)
from tests.conftest import TinyCheckpoints
from tests.fakes import POOL, a_request, expected_output
from twinfer.core.grant import Use
from twinfer.core.layout import KVDtype
from twinfer.core.messages import Granted, Lend, Prefill, Refused
from twinfer.core.request import GenerationRequest
from twinfer.core.tokens import Token
from twinfer.transport.inproc import Fault, InprocHub

SIZES = (8, 16, 24, 64)
STEM = [(41 * index) % 991 for index in range(400)]
NUM_TOKENS = 40


def ids_of(tokens: Sequence[Token]) -> list[int]:
    """Token ids."""
    return [token.token_id for token in tokens]


def a_pair(source: int, sink: int, dtype: KVDtype = "fp32", hub: InprocHub | None = None) -> Pair:
    """Two emulated workers with these tokens in a block."""
    return make_pair(
        emulated, (emulated_pool(source, dtype), emulated_pool(sink, dtype)), inproc_ways(hub or InprocHub())
    )


def first_turn(pair: Pair, length: int, tenant: str = "t") -> list[int]:
    """A prompt answered by the source, as a decode worker does: prompt and answer, whose full blocks are cached."""
    prompt = STEM[:length]
    answer = ids_of(pair.generate(a_request(prompt, NUM_TOKENS, f"turn {tenant}", tenant), member=pair.source))
    assert expected_output(prompt, NUM_TOKENS, EMULATION, tenant) == answer
    return [*prompt, *answer]


def prefix_on_source(pair: Pair, turn: list[int], tenant: str = "t", name: str = "fetch") -> GenerationRequest:
    """What the source has of a turn, as the fetch of it: the last token drawn was never computed."""
    size = pair.source.engine.capabilities.layout.block_tokens
    return a_request(turn[: (len(turn) - 1) // size * size], 1, name, tenant, 60.0)


def second_turn(pair: Pair, turn: list[int], tenant: str = "t") -> int:
    """The next turn on the sink, which must be answered right; how many of its tokens were cached there."""
    before = pair.sink.engine.load().counters.cached_tokens
    prompt = [*turn, 1, 2, 3]
    answer = pair.generate(a_request(prompt, 4, f"next {tenant}", tenant))
    assert expected_output(prompt, 4, EMULATION, tenant) == ids_of(answer)
    return pair.sink.engine.load().counters.cached_tokens - before


@pytest.mark.parametrize(("source", "sink"), list(product(SIZES, SIZES)))
@pytest.mark.parametrize("dtype", ["fp32", "fp8"])
def test_every_block_size_into_every_other(source: int, sink: int, dtype: KVDtype) -> None:
    """Whatever the source has, the sink has the full blocks of it afterwards; prompt and answer alike."""
    with closing(a_pair(source, sink, dtype)) as pair:
        turn = first_turn(pair, 100)
        prefix = prefix_on_source(pair, turn)
        assert pair.fetch(prefix) == 0
        pair.assert_idle()
        assert second_turn(pair, turn) == len(prefix.prompt) // sink * sink
        pair.assert_idle()


@pytest.mark.parametrize("transport", ["shm", "tcp"])
def test_over_real_transports(transport: str) -> None:
    """The same through shared memory and sockets, over many chunks."""
    with closing(make_pair(emulated, (emulated_pool(16, "fp32"),) * 2, real_ways(transport))) as pair:
        turn = first_turn(pair, 333)
        pair.fetch(prefix_on_source(pair, turn))
        assert second_turn(pair, turn) == 368
        counters = pair.sink.reception.load(healthy=True).counters
        assert (counters.fetches_in, counters.fetched_tokens, counters.handoffs_in) == (1, 368, 0)
        assert pair.source.reception.load(healthy=True).counters.fetches_out == 1
        assert pair.sink.reception.load(healthy=True).handoffs_by_transport == {transport: 1}


@pytest.mark.parametrize("sink", [16, 24, 64])
def test_what_the_sink_has_does_not_travel(sink: int) -> None:
    """Its own blocks stay, only the rest comes; a second fetch brings nothing and harms nothing."""
    with closing(a_pair(16, sink)) as pair:
        turn = first_turn(pair, 200)
        pair.generate(a_request(turn[:150], 1, "earlier"))
        here, prefix = 150 // sink * sink, prefix_on_source(pair, turn)
        assert pair.fetch(prefix) == here
        counters = pair.sink.reception.load(healthy=True).counters
        end = len(prefix.prompt) // sink * sink
        assert counters.fetched_tokens == end - here
        wire = pair.source.engine.capabilities.layout
        assert counters.kv_bytes_in == (wire.blocks_for(end) - here // 16) * wire.block_bytes
        assert pair.fetch(prefix_on_source(pair, turn, name="again")) == end
        assert second_turn(pair, turn) == end
        pair.assert_idle()


def test_tenants_are_strangers() -> None:
    """What one tenant's turn left is not lent to another, nor found by it after the first one fetched it."""
    with closing(a_pair(16, 16)) as pair:
        turn = first_turn(pair, 100, "a")
        stranger = prefix_on_source(pair, turn, "b", "stranger")
        granted = pair.reserve(stranger, use=Use.CACHE)
        assert isinstance(granted, Granted)
        pair.source.reception.take(Lend(stranger, granted.grant), pair.gateway, pair)
        assert pair.gateway.said == [Refused(stranger.request_id, "the prefix is not cached here any more")]
        pair.gateway.said.clear()
        pair.cancel(stranger.request_id)
        pair.assert_idle()
        pair.fetch(prefix_on_source(pair, turn, "a"))
        other = a_request(turn, 4, "other", "b")
        assert expected_output(turn, 4, EMULATION, "b") == ids_of(pair.generate(other))
        assert pair.sink.engine.load().counters.cached_tokens == 0
        assert second_turn(pair, turn, "a") == 128


def test_a_corrupt_chunk_is_never_cached() -> None:
    """It is asked for once more; twice corrupt, and the fetch leaves nothing behind."""
    for faults, fetched in (([Fault.CORRUPT], 128), ([Fault.CORRUPT] * 100, 0)):
        hub = InprocHub()
        with closing(a_pair(16, 16, hub=hub)) as pair:
            turn = first_turn(pair, 100)
            hub.faults.extend(faults)
            if fetched:
                pair.fetch(prefix_on_source(pair, turn))
            else:
                with pytest.raises(AssertionError, match="corrupt twice"):
                    pair.fetch(prefix_on_source(pair, turn))
                pair.gateway.said.clear()
                pair.settle()
            pair.assert_idle()
            hub.faults.clear()
            assert second_turn(pair, turn) == fetched


def test_a_grant_serves_one_use() -> None:
    """A prompt cannot be computed under a fetch's grant, nor a prefix lent under a prompt's."""
    with closing(a_pair(16, 16)) as pair:
        turn = first_turn(pair, 100)
        for use, message in ((Use.CACHE, Prefill), (Use.DECODE, Lend)):
            request = prefix_on_source(pair, turn, name=use.value)
            granted = pair.reserve(request, use=use)
            assert isinstance(granted, Granted)
            pair.source.reception.take(message(request, granted.grant), pair.gateway, pair)
            refused = pair.gateway.said.pop()
            assert isinstance(refused, Refused)
            assert refused.reason.startswith("widened: the grant is for use")
            pair.cancel(request.request_id)
        pair.assert_idle()
        assert pair.source.reception.load(healthy=True).grants_refused == {"widened": 2}


def test_foreign_numbers_are_not_fetched() -> None:
    """The sink would not find them as its own: it says no before anything is lent, and the pair stays a pair."""
    pools = (emulated_pool(16, "bf16"), emulated_pool(16, "fp32"))
    with closing(make_pair(emulated, pools, inproc_ways(InprocHub()))) as pair:
        turn = first_turn(pair, 100)
        refused = pair.reserve(prefix_on_source(pair, turn), use=Use.CACHE)
        assert isinstance(refused, Refused)
        assert not refused.incompatible
        assert "emulated/bf16" in refused.reason
        pair.assert_idle()


@pytest.mark.torch
@pytest.mark.parametrize("blocks", [(16, 16), (24, 16)])
def test_native_turns_go_on_the_same(tiny: TinyCheckpoints, cache_dir: Path, blocks: tuple[int, int]) -> None:
    """R7: a second turn on top of fetched KV, prompt's and answer's, draws the tokens that it draws without."""
    pools = tuple(
        msgspec.structs.replace(POOL, engine="native", weights="fp32", block_tokens=size, max_step_tokens=40)
        for size in blocks
    )
    make = native_maker(str(tiny("tiny-llama")), cache_dir)
    with closing(make_pair(make, (pools[0], pools[1]), inproc_ways(InprocHub()))) as pair:
        vocab = pair.sink.engine.capabilities.vocab_size
        prompt = [token % vocab for token in STEM[:90]]
        turn = [*prompt, *ids_of(pair.generate(a_request(prompt, 30, "turn"), member=pair.source))]
        alone = ids_of(pair.generate(a_request([*turn, 1, 2], 8, "alone", "another tenant")))
        pair.fetch(prefix_on_source(pair, turn))
        assert alone == ids_of(pair.generate(a_request([*turn, 1, 2], 8, "next")))
        assert pair.sink.engine.load().counters.cached_tokens >= 96
        pair.assert_idle()
