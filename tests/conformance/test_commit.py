"""Commits that rest on the source's word instead of on digests: the same answers, unless it let go of the blocks."""

from contextlib import closing

import pytest

from tests.conformance.pair import EMULATION, Pair, emulated, emulated_pool, inproc_ways, make_pair, real_ways
from tests.fakes import a_request, expected_output
from twinfer.core.grant import Proof
from twinfer.core.layout import KVDtype
from twinfer.core.messages import Granted, Prefill
from twinfer.transport import digest
from twinfer.transport.inproc import InprocHub
from twinfer.worker import source_desk

STEM = [(37 * index) % 997 for index in range(300)]
D, G = Proof.DIGEST, Proof.GENERATION


def a_pair(
    source: tuple[int, KVDtype], sink: tuple[int, KVDtype], commits: tuple[Proof, Proof], transport: str = ""
) -> Pair:
    """Two emulated workers in these forms."""
    ways = real_ways(transport) if transport else inproc_ways(InprocHub())
    return make_pair(emulated, (emulated_pool(*source), emulated_pool(*sink)), ways, commits)


def check_handoffs_and_a_fetch(pair: Pair) -> None:
    """Prompts one way, and one of them back."""
    for length in (5, 100, 250):
        tokens, _ = pair.hand_over(a_request(STEM[:length], 4, f"r{length}"))
        assert expected_output(STEM[:length], 4, EMULATION) == [token.token_id for token in tokens]
    for name, member, cached in (("there", pair.source, 192), ("here", pair.sink, 192)):
        if name == "here":
            pair.fetch(a_request(STEM[50:242], 1, "fetch"))
        answer = pair.generate(a_request(STEM[50:250], 4, name), member=member)
        assert expected_output(STEM[50:250], 4, EMULATION) == [token.token_id for token in answer]
        assert name == "there" or pair.sink.engine.load().counters.cached_tokens >= cached
    pair.assert_idle()


def refuse_to_digest(*args: object) -> int:
    """Nobody may."""
    raise AssertionError("digests are dear")


@pytest.mark.parametrize("transport", ["", "shm", "tcp"])
@pytest.mark.parametrize("forms", [((16, "fp32"), (16, "fp32")), ((24, "fp32"), (16, "fp32"))])
def test_nobody_digests(
    transport: str, forms: tuple[tuple[int, KVDtype], tuple[int, KVDtype]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Handoff and fetch, converted or not, over every transport, without one digest on either side."""
    with closing(a_pair(*forms, (G, G), transport)) as pair:
        monkeypatch.setattr(digest, "xxh3_64", refuse_to_digest)
        monkeypatch.setattr(source_desk, "digest_blocks", refuse_to_digest)
        check_handoffs_and_a_fetch(pair)


@pytest.mark.parametrize("commits", [(D, G), (G, D), (D, D)])
def test_the_sink_decides(commits: tuple[Proof, Proof]) -> None:
    """Workers that are set differently pass KV all the same: the grant says what the commit rests on."""
    with closing(a_pair((16, "fp32"), (16, "fp32"), commits)) as pair:
        check_handoffs_and_a_fetch(pair)


@pytest.mark.parametrize("forms", [((16, "fp32"), (16, "fp32")), ((24, "fp32"), (16, "fp32"))])
def test_blocks_that_were_let_go_are_not_committed(forms: tuple[tuple[int, KVDtype], tuple[int, KVDtype]]) -> None:
    """The source's engine lost them after they were offered: the question comes back with a withdrawal."""
    with closing(a_pair(*forms, (G, G))) as pair:
        request = a_request(STEM[:30], 4)
        granted = pair.reserve(request)
        assert isinstance(granted, Granted)
        pair.source.reception.take(Prefill(request, granted.grant), pair.gateway, pair)
        while pair.source.step():
            pass
        pair.source.engine.exports.release(request.request_id)
        with pytest.raises(AssertionError, match="let go"):
            pair.settle()
        pair.gateway.said.clear()
        pair.settle()
        pair.assert_idle()
        assert pair.sink.engine.load().counters.requests == 0
