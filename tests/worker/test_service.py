"""Two workers and a gateway by hand: what is repeated, foreign, or does not fit changes nothing."""

import contextlib
import hmac
from collections.abc import AsyncIterator

import msgspec
import pytest

from tests.fakes import KEY, a_request, expected_output
from tests.worker.workplace import Caller, Station, calling, is_at_rest, station
from twinfer.core.capabilities import Role
from twinfer.core.grant import Grant, GrantTerms, request_digest
from twinfer.core.ids import Epoch, HandoffId, TenantId, WorkerId
from twinfer.core.messages import Blocks, Cancel, Generate, Granted, Hello, Prefill, Refused, Reserve, TellBlocks
from twinfer.core.request import GenerationRequest
from twinfer.handoff.grants import sign
from twinfer.router.prefix_index import PrefixIndex

PROMPT = list(range(1, 31))
NUM_OUTPUT = 6
REQUEST = a_request(PROMPT, NUM_OUTPUT)


def reserve(request: GenerationRequest, source: Station, handoff: str = "h", attempt: int = 1) -> Reserve:
    """A reservation for what this source will pass."""
    them = source.identity
    return Reserve(request, HandoffId(handoff), attempt, them.worker, them.epoch, them.capabilities)


@contextlib.asynccontextmanager
async def pair() -> AsyncIterator[tuple[Station, Station, Caller, Caller]]:
    """A prefill and a decode worker, and a gateway's streams to them."""
    async with station("p", Role.PREFILL) as p, station("d", Role.DECODE) as d, calling(p, d) as (to_p, to_d):
        yield p, d, to_p, to_d


def numbered(tokens: list[int]) -> list[tuple[int, int]]:
    """With their index."""
    return list(enumerate(tokens))


async def test_handoff():
    """Both workers introduce themselves; the first token comes from both, the rest from the sink, and nothing stays."""
    async with pair() as (p, d, to_p, to_d):
        assert [(await caller.hear(Hello))[0].identity for caller in (to_p, to_d)] == [p.identity, d.identity]
        to_d.send(reserve(REQUEST, p))
        [granted] = await to_d.hear(Granted)
        assert granted.cached_tokens == 0
        to_p.send(Prefill(REQUEST, granted.grant))
        await to_d.done("r")
        expected = numbered(expected_output(PROMPT, NUM_OUTPUT))
        assert (to_p.tokens("r"), to_d.tokens("r")) == (expected[:1], expected)
        source, sink = (await p.at_rest()).counters, (await d.at_rest()).counters
        assert (source.prefill_tokens, source.decode_tokens, source.handoffs_out) == (len(PROMPT), 0, 1)
        assert (sink.prefill_tokens, sink.decode_tokens, sink.handoffs_in) == (0, NUM_OUTPUT - 1, 1)
        assert source.kv_bytes_out == sink.kv_bytes_in == 8 * 256


async def test_repeated_requests():
    """A reservation asked for again is the same grant and one promise; a prompt sent again is computed once."""
    async with pair() as (p, d, to_p, to_d):
        to_d.send(*[reserve(REQUEST, p)] * 3)
        granted = await to_d.hear(Granted, 3)
        assert granted == granted[:1] * 3
        assert d.load.blocks.promised == 8
        to_p.send(*[Prefill(REQUEST, granted[0].grant)] * 3)
        await to_d.done("r")
        assert to_d.tokens("r") == numbered(expected_output(PROMPT, NUM_OUTPUT))
        to_d.send(reserve(REQUEST, p))
        assert "ended already" in (await to_d.hear(Refused))[0].reason
        assert (await p.at_rest()).counters.prefill_tokens == len(PROMPT)
        assert (await d.at_rest()).counters.handoffs_in == 1


async def test_cancel_at_any_time():
    """Cancelling before, after, twice, and what was never asked for leaves nothing and says nothing."""
    async with pair() as (p, d, to_p, to_d):
        to_d.send(Cancel(REQUEST.request_id), reserve(REQUEST, p))
        [granted] = await to_d.hear(Granted)
        to_p.send(Prefill(REQUEST, granted.grant), Cancel(REQUEST.request_id), Cancel(REQUEST.request_id))
        to_d.send(Cancel(REQUEST.request_id), Cancel(REQUEST.request_id))
        await p.at_rest()
        await d.at_rest()
        other = a_request(PROMPT[::-1], NUM_OUTPUT, "other")
        to_d.send(Generate(other))
        await to_d.done("other")
        assert to_d.tokens("other") == numbered(expected_output(PROMPT[::-1], NUM_OUTPUT))
        assert to_d.tokens("r") == []


async def test_gateway_leaves():
    """When a gateway's stream ends, whatever it had asked for is cancelled on both workers."""
    async with station("p", Role.PREFILL) as p, station("d", Role.DECODE) as d:
        for worker in (p, d):
            worker.runner.gate.clear()
        async with calling(p, d) as (to_p, to_d):
            to_d.send(reserve(REQUEST, p), Generate(a_request(PROMPT, 1000, "long")))
            [granted] = await to_d.hear(Granted)
            to_p.send(Prefill(REQUEST, granted.grant))
            await p.until(lambda load: load.running == 1)
            await d.until(lambda load: load.running == 1 and load.handoffs == {"sink_promised": 1})
        for worker in (p, d):
            worker.runner.gate.set()
            await worker.at_rest()


def terms_of(grant: Grant) -> GrantTerms:
    """What a grant says."""
    return msgspec.msgpack.decode(grant.terms, type=GrantTerms)


OTHER = a_request([*PROMPT, 99], NUM_OUTPUT)
FOREIGN = {
    "forged": lambda terms: Grant(msgspec.msgpack.encode(terms), b"nobody's signature"),
    "malformed": lambda terms: Grant(b"no terms", hmac.digest(KEY, b"twinfer grant v1\x00no terms", "sha256")),
    "foreign": lambda terms: sign(msgspec.structs.replace(terms, source=WorkerId("q")), KEY),
    "stale": lambda terms: sign(msgspec.structs.replace(terms, source_epoch=Epoch("0")), KEY),
    "tenant": lambda terms: sign(msgspec.structs.replace(terms, tenant=TenantId("other")), KEY),
    "widened": lambda terms: sign(msgspec.structs.replace(terms, request=request_digest(OTHER)), KEY),
    "expired": lambda terms: sign(msgspec.structs.replace(terms, expires_unix_s=0.0), KEY),
    "incompatible": lambda terms: sign(
        msgspec.structs.replace(terms, wire=msgspec.structs.replace(terms.wire, block_tokens=8)), KEY
    ),
}


@pytest.mark.parametrize("word", FOREIGN)
async def test_foreign_grants(word: str):
    """A grant that is not for this worker, start, tenant, prompt, time or layout is refused before any compute."""
    async with pair() as (p, _, to_p, to_d):
        to_d.send(reserve(REQUEST, p))
        [granted] = await to_d.hear(Granted)
        to_p.send(Prefill(REQUEST, FOREIGN[word](terms_of(granted.grant))))
        [refused] = await to_p.hear(Refused)
        assert refused.reason.startswith(word)
        assert not p.runner.inside.is_set()
        assert is_at_rest(p.load)
        assert p.load.grants_refused == {word: 1}
        to_p.send(Prefill(REQUEST, granted.grant))
        await to_d.done("r")
        assert to_d.tokens("r") == numbered(expected_output(PROMPT, NUM_OUTPUT))


async def test_a_grant_is_not_used_twice():
    """After its handoff has ended, well or not, the same grant makes the source compute nothing, and is counted."""
    async with pair() as (p, d, to_p, to_d):
        for number, name in enumerate(("r", "left"), 1):
            request = a_request([number, *PROMPT], NUM_OUTPUT, name)
            to_d.send(reserve(request, p, f"h{number}"))
            granted = (await to_d.hear(Granted, number))[-1]
            to_p.send(Prefill(request, granted.grant))
            if name == "left":
                to_p.send(Cancel(request.request_id))
                to_d.send(Cancel(request.request_id))
            else:
                await to_d.done(name)
            await d.at_rest()
            computed = (await p.at_rest()).counters.requests
            to_p.send(Prefill(request, granted.grant))
            refused = (await to_p.hear(Refused, number))[-1]
            assert (refused.request_id, refused.reason.partition(":")[0]) == (name, "replayed")
            assert (p.load.counters.requests, p.load.grants_refused) == (computed, {"replayed": number})
            assert is_at_rest(p.load)


async def test_tenants_share_no_prefix():
    """Neither where it was computed nor where it was passed to: the same prompt of another tenant is all new there."""
    async with pair() as (p, _, to_p, to_d):
        for number, (tenant, cached_tokens) in enumerate((("a", 0), ("b", 0), ("a", 28)), 1):
            request = a_request(PROMPT, NUM_OUTPUT, f"r{number}", tenant=tenant)
            before = p.load.counters
            to_d.send(reserve(request, p, f"h{number}"))
            granted = (await to_d.hear(Granted, number))[-1]
            assert granted.cached_tokens == cached_tokens
            to_p.send(Prefill(request, granted.grant))
            await to_d.done(request.request_id)
            assert to_d.tokens(request.request_id) == numbered(expected_output(PROMPT, NUM_OUTPUT, tenant=tenant))
            after = (await p.at_rest()).counters
            assert after.cached_tokens - before.cached_tokens == cached_tokens


async def test_a_gateway_follows_the_prefix_cache():
    """All of it first, then what changed; asked to, the worker tells everything again, and the index agrees."""
    async with pair() as (_, d, _, to_d):
        request = a_request(PROMPT, NUM_OUTPUT)
        identity = d.identity
        index = PrefixIndex(KEY)
        index.met(identity)
        to_d.send(Generate(request))
        await to_d.done(request.request_id)
        whole = len(PROMPT) // identity.capabilities.layout.block_tokens * identity.capabilities.layout.block_tokens
        heard = 0
        while index.hits(request) != {identity.worker: min(whole, len(PROMPT) - 1)}:
            heard += 1
            assert index.apply(identity.worker, (await to_d.hear(Blocks, heard))[-1].events)
        to_d.send(TellBlocks())
        again = (await to_d.hear(Blocks, heard + 1))[-1].events
        assert again.everything
