"""Virtual KV goes the whole way of real KV, counts as what it stands for, and is as hard to fool."""

from contextlib import closing

import msgspec
import pytest

from tests.conformance.pair import EMULATION, Pair, emulated, emulated_pool, inproc_ways, make_pair, real_ways
from tests.fakes import MODEL, a_request, expected_output
from twinfer.core.config import PoolConfig
from twinfer.engine.assemble import emulated_capabilities
from twinfer.transport.inproc import Fault, InprocHub
from twinfer.worker.compatibility import negotiate

VIRTUAL = msgspec.structs.replace(EMULATION, kv="virtual", device="cs3")
NUM_TOKENS = 6
STEM = [n % 900 for n in range(400)]
TOKEN_BYTES = 37008
"""gpt-oss-120b at 32,768 tokens in 16 bits: 36 KiB, and 4.5 MiB of windows shared by all."""


def virtual_pool(block_tokens: int) -> PoolConfig:
    """A pool whose KV is virtual."""
    return msgspec.structs.replace(emulated_pool(block_tokens, "bf16"), emulation=VIRTUAL)


def virtual_pair(source: int, sink: int, hub: InprocHub) -> Pair:
    """Two workers with these block sizes."""
    return make_pair(emulated, (virtual_pool(source), virtual_pool(sink)), inproc_ways(hub))


@pytest.mark.parametrize(("source", "sink"), [(16, 16), (24, 16), (8, 32)])
def test_a_handoff_continues_with_the_right_tokens(source: int, sink: int) -> None:
    """Any length, with prefix hits, whatever the blocks on either side; bytes are those that it stands for."""
    with closing(virtual_pair(source, sink, InprocHub())) as pair:
        expected_bytes = 0
        for length in (1, 15, 16, 100, 333):
            tokens, cached = pair.hand_over(a_request(STEM[:length], NUM_TOKENS, f"r{length}"))
            assert expected_output(STEM[:length], NUM_TOKENS, VIRTUAL) == [token.token_id for token in tokens]
            num_blocks = -(-length // source) - cached // source
            expected_bytes += num_blocks * source * TOKEN_BYTES
        counters = pair.sink.reception.load(healthy=True).counters
        assert (expected_bytes, 0) == (counters.kv_bytes_in, counters.integrity_failures)
        pair.assert_idle()


def test_a_corrupt_chunk_is_sent_again() -> None:
    """Digests are those of the fingerprints."""
    hub = InprocHub()
    with closing(virtual_pair(16, 16, hub)) as pair:
        hub.faults.extend([Fault.CORRUPT])
        tokens, _ = pair.hand_over(a_request(STEM[:200], NUM_TOKENS))
        assert expected_output(STEM[:200], NUM_TOKENS, VIRTUAL) == [token.token_id for token in tokens]
        counters = pair.sink.reception.load(healthy=True).counters
        assert (1, 1) == (counters.integrity_failures, counters.handoffs_in)


@pytest.mark.parametrize("transport", ["shm", "tcp"])
def test_over_real_transports(transport: str) -> None:
    """What moves is small; chunks hold as many blocks as their counted bytes allow."""
    pools = (virtual_pool(16), virtual_pool(16))
    with closing(make_pair(emulated, pools, real_ways(transport))) as pair:
        tokens, _ = pair.hand_over(a_request(STEM, NUM_TOKENS))
        assert expected_output(STEM, NUM_TOKENS, VIRTUAL) == [token.token_id for token in tokens]
        pair.assert_idle()


def test_virtual_and_real_kv_do_not_mix() -> None:
    """Nor do those that stand for different models, even where any provenance is accepted."""
    virtual = emulated_capabilities(MODEL, virtual_pool(16))
    other = msgspec.structs.replace(VIRTUAL, model_shape="qwen3-8b")
    of_another = emulated_capabilities(MODEL, msgspec.structs.replace(virtual_pool(16), emulation=other))
    real = emulated_capabilities(MODEL, emulated_pool(16, "bf16"))
    assert not isinstance(negotiate(virtual, virtual, ()), str)
    for source in (of_another, real):
        assert isinstance(negotiate(source, virtual, ("*",)), str)
        assert isinstance(negotiate(virtual, source, ("*",)), str)
