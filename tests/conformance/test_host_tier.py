"""A host tier changes no answer: whatever engine, wherever its pool is, and whoever reads what the tier has."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path

import msgspec
import pytest

from tests.conformance.pair import Pair, emulated, emulated_pool, inproc_ways, make_pair, native_maker, real_ways
from tests.conftest import TinyCheckpoints
from tests.fakes import POOL, a_request
from twinfer.core.config import PoolConfig
from twinfer.core.grant import Proof
from twinfer.core.request import GenerationRequest
from twinfer.core.tokens import Token
from twinfer.engine.paged import PagedEngine
from twinfer.kv.memory import PoolMemory
from twinfer.transport.inproc import InprocHub

POOL_TOKENS = 256
NUM_TOKENS = 4
Make = Callable[[PoolConfig], tuple[PagedEngine, PoolMemory]]
Kind = tuple[Make, PoolConfig]
"""What makes engines, and of which pools; those have room for two of the prompts below."""


def with_host_tier(pool: PoolConfig) -> PoolConfig:
    """A pool over a tier of some thousand tokens."""
    return msgspec.structs.replace(pool, host_kv_mib=4)


@pytest.fixture(
    params=["emulated", *(pytest.param(name, marks=pytest.mark.torch) for name in ("native", "native, staged"))]
)
def kind(request: pytest.FixtureRequest) -> Iterator[Kind]:
    """Each engine, with its pool in the memory that KV leaves from, or with a device's pool staged there."""
    if request.param == "emulated":
        yield partial(emulated, num_tokens=POOL_TOKENS), emulated_pool(16, "fp32")
        return
    tiny: TinyCheckpoints = request.getfixturevalue("tiny")
    cache_dir: Path = request.getfixturevalue("cache_dir")
    make_runner, device = None, "cpu"
    if request.param == "native, staged":
        from tests.engine.places import STAND_IN

        device, make_runner = STAND_IN
    pool = msgspec.structs.replace(
        POOL, engine="native", weights="fp32", device=device, block_tokens=16, max_step_tokens=64
    )
    yield native_maker(str(tiny("tiny-llama")), cache_dir, POOL_TOKENS, make_runner), pool


def a_pair(kind: Kind, source: bool, sink: bool, commit: Proof = Proof.DIGEST, transport: str = "") -> Pair:
    """Two workers, each with a host tier or without."""
    make, pool = kind
    pools = tuple(with_host_tier(pool) if tier else pool for tier in (source, sink))
    ways = real_ways(transport) if transport else inproc_ways(InprocHub())
    return make_pair(make, (pools[0], pools[1]), ways, (commit, commit))


def a_prompt(number: int, length: int = 100) -> list[int]:
    """A prompt that shares nothing with the others."""
    return [(17 * index + 101 * number) % 991 for index in range(length)]


def asking(number: int, name: str = "", length: int = 100) -> GenerationRequest:
    """The request for its answer."""
    return a_request(a_prompt(number, length), NUM_TOKENS, f"{number} {name}")


def ids_of(tokens: Sequence[Token]) -> list[int]:
    """Token ids."""
    return [token.token_id for token in tokens]


def assert_idle(pair: Pair) -> None:
    """Nothing is held in any tier."""
    pair.assert_idle()
    for member in (pair.source, pair.sink):
        host = member.engine.load().host
        assert (host.held, host.filling) == (0, 0)


def test_the_same_answers_from_a_bigger_cache(kind: Kind) -> None:
    """Five prompts in turn, of which the pool holds two: the second round is in the tier, and nowhere without one."""
    with closing(a_pair(kind, True, False)) as pair:
        answers = {
            member: [ids_of(pair.generate(asking(number, name), member=member)) for name in "ab" for number in range(5)]
            for member in (pair.source, pair.sink)
        }
        assert answers[pair.sink] == answers[pair.source]
        counters = [member.engine.load().counters for member in (pair.source, pair.sink)]
        assert [each.cached_tokens for each in counters] == [5 * 96, 0]
        assert counters[0].host_tokens == 5 * 96
        assert_idle(pair)


def test_what_came_back_is_handed_over(kind: Kind) -> None:
    """A prefill worker does not compute again what its tier has, and the decode worker goes on as if it had."""
    with closing(a_pair(kind, True, False)) as pair:
        answers = [ids_of(pair.hand_over(asking(number))[0]) for number in range(4)]
        before = pair.source.engine.load().counters.prefill_tokens
        assert answers[0] == ids_of(pair.hand_over(asking(0, "again"))[0])
        assert pair.source.engine.load().counters.prefill_tokens - before == 4
        assert_idle(pair)


@pytest.mark.parametrize("commit", Proof)
def test_another_worker_fetches_it(kind: Kind, commit: Proof) -> None:
    """By the same protocol and under the same grant as what is in the pool, though it never goes back there."""
    with closing(a_pair(kind, True, False, commit)) as pair:
        answers = [ids_of(pair.generate(asking(number), member=pair.source)) for number in range(4)]
        before = pair.source.engine.load().counters
        prefix = msgspec.structs.replace(asking(0, "fetch"), prompt=tuple(a_prompt(0)[:96]))
        assert pair.fetch(prefix) == 0
        after = pair.source.engine.load().counters
        assert (before.host_tokens, before.prefill_tokens) == (after.host_tokens, after.prefill_tokens)
        assert answers[0] == ids_of(pair.generate(asking(0, "there")))
        assert pair.sink.engine.load().counters.cached_tokens == 96
        assert_idle(pair)


@pytest.mark.torch
def test_windows(tiny: TinyCheckpoints, cache_dir: Path) -> None:
    """Where every layer has a window, a sequence has not all of its blocks at once: what comes back is no more than
    that, and the answers are the same."""
    pool = msgspec.structs.replace(POOL, engine="native", weights="fp32", block_tokens=16, max_step_tokens=16)
    kind = native_maker(str(tiny("tiny-mistral")), cache_dir, POOL_TOKENS), pool
    with closing(a_pair(kind, True, False)) as pair:
        for name in "ab":
            for number in range(5):
                request = asking(number, name, 150)
                tokens = [ids_of(pair.generate(request, member=each)) for each in (pair.source, pair.sink)]
                assert tokens[1] == tokens[0]
        assert pair.source.engine.load().counters.host_tokens > 0
        assert_idle(pair)


@pytest.mark.parametrize("transport", ["shm", "tcp"])
def test_over_real_transports(transport: str) -> None:
    """The tier lies in the memory that a worker's transports pass on."""
    kind = partial(emulated, num_tokens=POOL_TOKENS), emulated_pool(16, "fp32")
    with closing(a_pair(kind, True, False, transport=transport)) as pair:
        answers = [ids_of(pair.generate(asking(number), member=pair.source)) for number in range(4)]
        prefix = msgspec.structs.replace(asking(0, "fetch"), prompt=tuple(a_prompt(0)[:96]))
        assert pair.fetch(prefix) == 0
        assert answers[0] == ids_of(pair.generate(asking(0, "there")))
        assert pair.sink.engine.load().counters.cached_tokens == 96


def test_the_sink_says_what_it_could_lend(kind: Kind) -> None:
    """A grant names what is in the pool, which need not come, and what is in the tier, which could be fetched."""
    with closing(a_pair(kind, False, True)) as pair:
        for number in range(4):
            pair.generate(asking(number))
        granted = pair.reserve(asking(0, "again"))
        assert (granted.cached_tokens, granted.host_tokens) == (0, 96)  # type: ignore[union-attr]
        pair.cancel(asking(0, "again").request_id)
        assert_idle(pair)
