"""Three ways in which vLLM 0.32 with NIXL answered HTTP 200 with wrong tokens, replayed: here each is refused or right.

1. The source's lease expired, and it reused the blocks before the sink had read them: another prompt's answer.
2. The block size of the sink is twice the source's: wrong from the first token.
3. Source and sink pack KV for different instruction sets: the handshake passes, and the first token is wrong.

Emulated engines draw a wrong token from any wrong, stale or misplaced byte.
"""

from contextlib import closing
from unittest.mock import patch

import pytest

from tests.conformance.pair import Pair, emulated, emulated_pool, inproc_ways, make_pair
from tests.conformance.test_heterogeneity import NUM_TOKENS, STEM, changed, emulated_pair, expected, ids_of
from tests.fakes import a_request, expected_output
from tests.worker.hand_source import hand_source
from tests.worker.workplace import calling, station
from twinfer.core.capabilities import Role
from twinfer.core.clock import ManualClock
from twinfer.core.ids import HandoffId
from twinfer.core.messages import (
    Committed,
    Failed,
    FailureKind,
    Frame,
    Generate,
    Granted,
    Offer,
    Prefill,
    Refused,
    Reserve,
    Seal,
    ToSink,
)
from twinfer.core.request import GenerationRequest
from twinfer.transport.digest import digest_blocks
from twinfer.transport.inproc import InprocHub

PROMPT, OTHER = list(range(1, 31)), list(range(101, 131))
NUM_OUTPUT = 5


async def test_expired_lease_and_reused_blocks() -> None:
    """A source that says nothing, over shared memory that the sink can read all the time: the digests tell."""
    request = a_request(PROMPT, NUM_OUTPUT)
    async with station("d", Role.DECODE) as sink, hand_source() as source, calling(sink) as [caller]:
        them = source.identity
        caller.send(Reserve(request, HandoffId("h"), 1, them.worker, them.epoch, them.capabilities))
        await caller.hear(Granted)
        chunks, token = source.compute(request)
        source.reuse(chunks, by=source.compute(a_request(OTHER, NUM_OUTPUT, "other"))[0])
        await source.introduce(sink)
        source.send(*source.offers("h", chunks), source.seal("h", chunks, token))
        await source.answers(1)
        source.send(*source.offers("h", chunks))
        [failed] = await caller.hear(Failed)
        assert (failed.kind, failed.reason) == (FailureKind.HANDOFF, "integrity: a chunk arrived corrupt twice")
        assert not any(isinstance(answer, Committed) for answer in source.heard)
        assert caller.tokens("r") == []
        caller.send(Generate(a_request(PROMPT, NUM_OUTPUT, "again")))
        await caller.done("again")
        assert list(enumerate(expected_output(PROMPT, NUM_OUTPUT))) == caller.tokens("again")
        await sink.at_rest()


def test_expired_lease_of_a_source_of_ours() -> None:
    """It does not only stop holding the blocks, it no longer lets them be read; the prompt is computed again."""
    clock, pool = ManualClock(), emulated_pool(16, "fp32")
    with closing(make_pair(emulated, (pool, pool), inproc_ways(InprocHub()), clock=clock)) as pair:
        request = a_request(STEM[:200], NUM_TOKENS)
        said = said_by_the_source(pair, request)
        parked = tuple(block for offer in said if isinstance(offer, Offer) for block in offer.chunk.source_blocks)
        before = digest_blocks(pair.source.memory, parked)
        clock.advance(11.0)
        pair.source.reception.tick()
        for number in range(8):
            pair.source.reception.take(Generate(a_request([number] * 190, 2, f"o{number}")), pair.gateway, pair)
            while pair.source.step():
                pass
        assert before != digest_blocks(pair.source.memory, parked)
        pair.gateway.said.clear()
        for message in said:
            pair.send(message)
        while pair.calls:
            pair.calls.popleft()()
        [failed] = [message for message in pair.gateway.said if isinstance(message, Failed)]
        assert failed.request_id == request.request_id
        assert not any(isinstance(message, Frame) for message in pair.gateway.said)
        pair.gateway.said.clear()
        pair.assert_idle()
        assert expected(STEM[:200]) == ids_of(pair.generate(a_request(STEM[:200], NUM_TOKENS, "again")))


def said_by_the_source(pair: Pair, request: GenerationRequest) -> list[ToSink]:
    """Its offers and its seal, which are still on their way to the sink."""
    said: list[ToSink] = []
    with patch.object(pair, "send", said.append):
        granted = pair.reserve(request)
        assert isinstance(granted, Granted)
        pair.source.reception.take(Prefill(request, granted.grant), pair.gateway, pair)
        pair.settle()
    assert isinstance(said[-1], Seal)
    return said


@pytest.mark.parametrize(("source", "sink"), [(64, 128), (128, 64), (24, 16)])
def test_unequal_block_size(source: int, sink: int) -> None:
    """Blocks are cut anew where they arrive, whichever are larger."""
    with closing(emulated_pair((source, "fp32"), (sink, "fp32"))) as pair:
        for length in (26, 170, 253):
            tokens, _ = pair.hand_over(a_request(STEM[:length], NUM_TOKENS, f"r{length}"))
            assert expected(STEM[:length]) == ids_of(tokens)
        pair.assert_idle()


def test_unequal_packing() -> None:
    """A packing is part of the fingerprint: the reservation is refused before any compute, and the sink answers."""
    with closing(emulated_pair((16, "bf16"), (16, "bf16"))) as pair:
        request = a_request(STEM[:50], NUM_TOKENS)
        refused = pair.reserve(request, changed(pair.source.identity.capabilities, packing="cpu amx"))
        assert isinstance(refused, Refused)
        assert (refused.incompatible, "packing differs" in refused.reason) == (True, True)
        assert pair.source.engine.load().counters.requests == 0
        assert expected(STEM[:50]) == ids_of(pair.generate(request))
        pair.assert_idle()
