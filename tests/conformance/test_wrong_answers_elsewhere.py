"""Three ways in which vLLM with NIXL was seen to answer HTTP 200 with wrong tokens, replayed: refused, or right.

Seen with vLLM 0.2x and 0.3x on CPU and UCX: a sink that reads after the source's lease has ended, and so another
prompt's blocks; workers with 64 and 128 tokens to a block; workers whose kernels pack the cache in different ways
behind equal compatibility hashes. Emulated engines give a wrong token for any wrong element, so right means exact.
"""

from contextlib import closing

import pytest

from tests.conformance.pair import EMULATION, emulated, emulated_pool, inproc_ways, make_pair
from tests.fakes import a_request, expected_output
from tests.worker.hand_source import hand_source
from tests.worker.workplace import calling, station
from twinfer.core.capabilities import Role
from twinfer.core.ids import HandoffId
from twinfer.core.messages import Failed, FailureKind, Generate, Granted, Refused, Reserve
from twinfer.transport.inproc import InprocHub

PROMPT = list(range(1, 31))
OTHERS = [list(range(start, start + 30)) for start in range(40, 960, 60)]
"""Twice as many blocks as the source has."""
NUM_OUTPUT = 5
STEM = [(37 * index) % 997 for index in range(400)]


@pytest.mark.parametrize("asked_again", [False, True], ids=["offered late", "offered late, twice"])
async def test_expired_lease_with_reused_blocks(asked_again: bool) -> None:
    """Blocks that hold other prompts by the time they are read never become text; the prompt is computed anew."""
    request = a_request(PROMPT, NUM_OUTPUT)
    async with station("d", Role.DECODE) as sink, hand_source() as source, calling(sink) as [caller]:
        them = source.identity
        caller.send(Reserve(request, HandoffId("h"), 1, them.worker, them.epoch, them.capabilities))
        await caller.hear(Granted)
        chunks, token = source.compute(request)
        await source.introduce(sink)
        source.reuse(request.request_id, OTHERS)
        source.send(*source.offers("h", chunks), source.seal("h", chunks, token))
        await source.answers(1)
        if asked_again:
            source.send(*source.offers("h", chunks))
        else:
            await source.hang_up()
        [failed] = await caller.hear(Failed)
        assert failed.kind is FailureKind.HANDOFF
        report = await sink.at_rest()
        assert (report.counters.handoffs_in, caller.tokens("r")) == (0, [])
        assert report.counters.integrity_failures >= 1
        caller.send(Generate(a_request(PROMPT, NUM_OUTPUT, "anew")))
        await caller.done("anew")
        assert caller.tokens("anew") == list(enumerate(expected_output(PROMPT, NUM_OUTPUT)))


@pytest.mark.parametrize(("source", "sink"), [(64, 128), (128, 64), (16, 24)])
def test_unequal_block_size(source: int, sink: int) -> None:
    """Converted on arrival, prefix hits included."""
    pools = (emulated_pool(source, "bf16"), emulated_pool(sink, "bf16"))
    with closing(make_pair(emulated, pools, inproc_ways(InprocHub()))) as pair:
        for length in (63, 64, 65, 200, 400):
            tokens, _ = pair.hand_over(a_request(STEM[:length], NUM_OUTPUT, f"r{length}"))
            assert expected_output(STEM[:length], NUM_OUTPUT, EMULATION) == [token.token_id for token in tokens]
        pair.assert_idle()


def test_unequal_packing() -> None:
    """How a worker makes its KV is part of what it says of itself: another's is refused before any compute."""
    pools = (emulated_pool(16, "bf16"), emulated_pool(16, "fp32", accept=()))
    with closing(make_pair(emulated, pools, inproc_ways(InprocHub()))) as pair:
        refused = pair.reserve(a_request(STEM[:100], NUM_OUTPUT))
        assert isinstance(refused, Refused)
        assert refused.incompatible
        assert "numeric provenance emulated/bf16 there, emulated/fp32 here" in refused.reason
        tokens = pair.generate(a_request(STEM[:100], NUM_OUTPUT, "here"))
        assert expected_output(STEM[:100], NUM_OUTPUT, EMULATION) == [token.token_id for token in tokens]
        assert pair.source.reception.load(healthy=True).counters.prefill_tokens == 0
