"""A sink and a source played by hand: what is repeated, late, foreign or does not fit never becomes text."""

from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from tests.certificates import Cluster
from tests.fakes import a_request, expected_output
from tests.worker.hand_source import HandSource, hand_source
from tests.worker.workplace import SMALL, Caller, calling, eventually, is_at_rest, station
from twinfer.core.capabilities import Role
from twinfer.core.ids import Epoch, HandoffId
from twinfer.core.manifest import Chunk
from twinfer.core.messages import Committed, Failed, FailureKind, Gone, Granted, Reserve, Withdraw
from twinfer.tls.credentials import load_credentials
from twinfer.tls.roles import PeerRole

PROMPT = list(range(1, 31))
NUM_OUTPUT = 5
REQUEST = a_request(PROMPT, NUM_OUTPUT)
EXPECTED = list(enumerate(expected_output(PROMPT, NUM_OUTPUT)))


async def reserved(caller: Caller, source: HandSource) -> None:
    """Room is promised for handoff ``h`` from this source."""
    them = source.identity
    caller.send(Reserve(REQUEST, HandoffId("h"), 1, them.worker, them.epoch, them.capabilities))
    await caller.hear(Granted)


async def test_everything_three_times_and_backwards():
    """Offers and seals in the wrong order and repeated commit once, and what comes later is told that it has."""
    async with station("d", Role.DECODE) as sink, hand_source() as source, calling(sink) as [caller]:
        await reserved(caller, source)
        chunks, token = source.compute(REQUEST)
        assert (await source.introduce(sink)).refusal is None
        offers, seal = source.offers("h", chunks), source.seal("h", chunks, token)
        source.send(seal, *offers[::-1], seal, *offers[:1])
        await caller.done("r")
        assert caller.tokens("r") == EXPECTED
        said = await source.answers(1)
        source.send(*offers, seal, seal, source.beat("h"))
        said = await source.answers(len(said) + len(offers) + 2)
        assert set(said) == {Committed(HandoffId("h"), 1)}
        counters = (await sink.at_rest()).counters
        assert (counters.handoffs_in, counters.kv_bytes_in) == (1, 8 * 256)


async def test_unknown_and_earlier_handoffs():
    """A handoff that was never granted, or another attempt at one, is gone, and touches nothing."""
    async with station("d", Role.DECODE) as sink, hand_source() as source, calling(sink) as [caller]:
        await reserved(caller, source)
        chunks, token = source.compute(REQUEST)
        await source.introduce(sink)
        source.send(*source.offers("other", chunks[:1]), source.seal("h", chunks, token, attempt=2))
        said = await source.answers(2)
        assert [type(answer) for answer in said] == [Gone, Gone]
        assert [(answer.handoff, answer.attempt) for answer in said] == [("other", 1), ("h", 2)]
        assert sink.load.handoffs == {"sink_promised": 1}
        source.send(*source.offers("h", chunks), source.seal("h", chunks, token))
        await caller.done("r")
        assert caller.tokens("r") == EXPECTED


async def test_another_start_of_the_source():
    """Whoever comes with another epoch than the granted one is refused before a byte moves."""
    async with station("d", Role.DECODE) as sink, hand_source() as source, calling(sink) as [caller]:
        await reserved(caller, source)
        chunks, _ = source.compute(REQUEST)
        await source.introduce(sink, epoch=Epoch("another"))
        source.send(*source.offers("h", chunks))
        said = await source.answers(len(chunks))
        assert all(isinstance(answer, Gone) and answer.reason.startswith("stale") for answer in said)
        assert sink.load.handoffs == {"sink_promised": 1}
        assert sink.load.counters.kv_bytes_in == 0


async def test_incompatible_source():
    """Another KV dtype, where it is not accepted, is refused at the first word, in words that name the difference."""
    odd = msgspec.structs.replace(SMALL, kv_dtype="bf16")
    async with station("d", Role.DECODE) as sink, hand_source(odd) as source:
        hello = await source.introduce(sink)
        assert hello.refusal is not None
        assert hello.incompatible
        assert "numeric provenance emulated/bf16 there, emulated/fp32 here" in hello.refusal
        assert sink.load.counters.pairs_refused == 1
        await eventually(lambda: source.ended or None, "the end of the stream")
        assert is_at_rest(sink.load)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda chunk: msgspec.structs.replace(chunk, first_block=7), "widened"),
        (lambda chunk: msgspec.structs.replace(chunk, digest=chunk.digest ^ 1), "integrity"),
        (lambda chunk: msgspec.structs.replace(chunk, source_blocks=(10_000, 10_001)), "integrity"),
    ],
    ids=["outside the grant", "corrupt", "no such blocks"],
)
async def test_wrong_chunks(change: Callable[[Chunk], Chunk], reason: str):
    """A chunk that is too wide, or not what its digest says even a second time, ends the handoff without a token."""
    async with station("d", Role.DECODE) as sink, hand_source() as source, calling(sink) as [caller]:
        await reserved(caller, source)
        chunks, token = source.compute(REQUEST)
        await source.introduce(sink)
        wrong = [*chunks[:-1], change(chunks[-1])]
        source.send(*source.offers("h", wrong))
        if reason == "integrity":
            await source.answers(1)
            source.send(*source.offers("h", wrong[-1:]))
        [failed] = await caller.hear(Failed)
        assert (failed.kind, failed.reason.split(":")[0]) == (FailureKind.HANDOFF, reason)
        source.send(source.seal("h", wrong, token))
        assert all(not isinstance(answer, Committed) for answer in await source.answers(2))
        await sink.at_rest()
        assert caller.tokens("r") == []


async def test_source_leaves():
    """Before the seal the handoff ends with the source; after it, what is mapped may still be pulled and committed."""
    async with station("d", Role.DECODE) as sink, hand_source() as source, calling(sink) as [caller]:
        await reserved(caller, source)
        chunks, _ = source.compute(REQUEST)
        await source.introduce(sink)
        source.send(*source.offers("h", chunks))
        await sink.until(lambda load: load.counters.kv_bytes_in == 8 * 256)
        await source.hang_up()
        [failed] = await caller.hear(Failed)
        assert failed.reason.startswith("lost")
        await sink.at_rest()


async def test_source_withdraws():
    """A handoff that the source takes back is over at once."""
    async with station("d", Role.DECODE) as sink, hand_source() as source, calling(sink) as [caller]:
        await reserved(caller, source)
        chunks, token = source.compute(REQUEST)
        await source.introduce(sink)
        source.send(*source.offers("h", chunks[:1]), Withdraw(HandoffId("h"), 1, "changed its mind"))
        assert (await caller.hear(Failed))[0].reason == "changed its mind"
        await sink.at_rest()
        source.send(source.seal("h", chunks, token))
        assert isinstance((await source.answers(1))[0], Gone)
        assert is_at_rest(sink.load)


@pytest.mark.parametrize(("name", "refused"), [("p", False), ("q", True), ("", False)])
async def test_a_source_speaks_for_itself_only(
    cluster: Cluster, tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str, refused: bool
):
    """Source p shows p's certificate, or that of another worker, or one of any worker: another's passes nothing."""
    config = cluster.named(tmp_path, name) if name else cluster.worker
    shown = load_credentials(config, PeerRole.WORKER)
    own = cluster.credentials(PeerRole.WORKER)
    async with station("d", Role.DECODE, credentials=own) as sink, hand_source() as source:
        hello = await source.introduce(sink, credentials=shown)
        says = "its certificate is for q, and it says that it is p"
        assert hello.refusal == (says if refused else None)
        assert not hello.incompatible
        assert sink.load.peers_refused == ({"name": 1} if refused else {})
        assert (f"refused KV from p: {says}" in caplog.text) is refused
