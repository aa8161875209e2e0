"""Source and sink against each other over a network that loses, repeats, reorders and corrupts."""

from dataclasses import dataclass, field

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fakes import a_request
from twinfer.core.grant import GrantTerms, Proof, Use, request_digest
from twinfer.core.ids import Epoch, HandoffId, RequestId, TenantId, WorkerId
from twinfer.core.layout import KVLayout
from twinfer.core.manifest import Chunk, root_digest
from twinfer.core.messages import (
    Committed,
    Confirm,
    Confirmed,
    Gone,
    Offer,
    OfferAgain,
    Seal,
    ToSink,
    ToSource,
    Withdraw,
)
from twinfer.core.tokens import FinishReason, Token
from twinfer.handoff.actions import Bind, Commit, Digest, GiveUp, Pull, Release, Show, SinkAction, SourceAction
from twinfer.handoff.lease import Lease
from twinfer.handoff.sink import SinkHandoff, SinkState
from twinfer.handoff.source import LET_GO, SourceHandoff, SourceState

LAYOUT = KVLayout(1, 1, 8, 4, "fp32")
LEASE_S = 10.0
FIRST = Token(RequestId("r"), 0, 7)
EVENTS = (
    *("digest", "sink", "sink", "sink", "pull", "pull", "source", "tick", "replay"),
    *("lose", "repeat", "stale", "corrupt", "fail", "cancel", "lost", "let go"),
)


def terms(start_block: int = 0, end_block: int = 5, use: Use = Use.DECODE, proof: Proof = Proof.DIGEST) -> GrantTerms:
    """A grant from sink d to source p."""
    request = a_request([1] * 20)
    return GrantTerms(
        handoff=HandoffId("h"),
        attempt=1,
        tenant=TenantId("t"),
        use=use,
        proof=proof,
        request=request_digest(request),
        fingerprint="f",
        source=WorkerId("p"),
        source_epoch=Epoch("ep"),
        sink=WorkerId("d"),
        sink_epoch=Epoch("ed"),
        sink_address="unix:/d",
        wire=LAYOUT,
        provenance="emulated/fp32",
        start_block=start_block,
        end_block=end_block,
        ttl_s=LEASE_S,
        expires_unix_s=1e12,
    )


@dataclass
class World:
    """Both machines, what is on the wire, and what the engines and transports were told to do."""

    num_blocks: int = 5
    start_block: int = 0
    use: Use = Use.DECODE
    proof: Proof = Proof.DIGEST
    chunk_blocks: int = 2
    now: float = 0.0
    to_sink: list[ToSink] = field(default_factory=list)
    to_source: list[ToSource] = field(default_factory=list)
    digests: list[Digest] = field(default_factory=list)
    pulls: list[Chunk] = field(default_factory=list)
    bound: bool = False
    committed: list[Token | None] = field(default_factory=list)
    gave_up: list[GiveUp] = field(default_factory=list)
    released: int = 0
    received: dict[int, int] = field(default_factory=dict)
    let_go: bool = False

    def __post_init__(self) -> None:
        lease = Lease.start(self.now, LEASE_S, 600)
        request = a_request([1] * (self.num_blocks * LAYOUT.block_tokens))
        granted = terms(self.start_block, self.num_blocks, self.use, self.proof)
        self.sink = SinkHandoff(granted, request, lease, max_pulls=2)
        self.source = SourceHandoff(granted, request, Lease.start(self.now, LEASE_S, 600), self.chunk_blocks)

    def source_acts(self, actions: list[SourceAction]) -> None:
        for action in actions:
            if isinstance(action, Digest):
                self.digests.append(action)
            elif isinstance(action, Release):
                self.released += 1
            elif isinstance(action, Show):
                assert self.proof is Proof.GENERATION
            else:
                self.to_sink.append(action.message)

    def sink_acts(self, actions: list[SinkAction]) -> None:
        for action in actions:
            if isinstance(action, Bind):
                assert not self.bound
                self.bound = True
            elif isinstance(action, Pull):
                assert self.bound
                self.pulls.append(action.chunk)
            elif isinstance(action, Commit):
                self.committed.append(action.first_token)
            elif isinstance(action, GiveUp):
                self.gave_up.append(action)
            else:
                self.to_source.append(action.message)

    def deliver_to_sink(self, message: ToSink, epoch: str = "ep") -> None:
        if isinstance(message, Offer):
            self.sink_acts(self.sink.offered(message.chunk, Epoch(epoch), self.now))
        elif isinstance(message, Seal):
            self.sink_acts(self.sink.sealed(message, Epoch(epoch), self.now))
        elif isinstance(message, Confirmed):
            self.sink_acts(self.sink.confirmed(Epoch(epoch), self.now))
        elif isinstance(message, Withdraw):
            self.sink_acts(self.sink.withdrawn(message.reason))

    def deliver_to_source(self, message: ToSource) -> None:
        if isinstance(message, OfferAgain):
            self.source_acts(self.source.asked_again(message.index))
        elif isinstance(message, Confirm):
            self.source_acts(self.source.confirm_asked(self.generations(self.source.blocks)))
        elif isinstance(message, Committed):
            self.source_acts(self.source.committed())
        elif isinstance(message, Gone):
            self.source_acts(self.source.gone())

    def pull(self, index: int, *, corrupt: bool, fail: bool) -> None:
        chunk = self.pulls.pop(index)
        if fail:
            self.sink_acts(self.sink.pull_failed(chunk.index, "the link broke"))
            return
        digest = digest_of(chunk.source_blocks) ^ int(corrupt) if self.proof is Proof.DIGEST else 0
        wrong = corrupt or self.let_go
        for offset in range(len(chunk.source_blocks)):
            self.received[chunk.first_block + offset] = -1 if wrong else chunk.source_blocks[offset]
        self.sink_acts(self.sink.pulled(chunk.index, digest, self.now))

    def digest(self, index: int) -> None:
        action = self.digests.pop(index)
        self.source_acts(self.source.digested(action.index, action.blocks, digest_of(action.blocks)))

    def generations(self, blocks: tuple[int, ...]) -> tuple[int, ...]:
        """Of the source's blocks, now."""
        return tuple(block % 7 + int(self.let_go) for block in blocks)

    def tick(self, seconds: float) -> None:
        self.now += seconds
        self.sink_acts(self.sink.tick(self.now))
        self.source_acts(self.source.tick(self.now))


def digest_of(blocks: tuple[int, ...]) -> int:
    """Stands for the digest of these source blocks' bytes."""
    return hash(blocks) & 0xFFFF_FFFF_FFFF_FFFE


def export_all(world: World, sizes: list[int]) -> None:
    """Blocks become final in portions of these sizes, the last one completing the prompt."""
    first = 0
    for size in sizes:
        blocks = tuple(100 + index for index in range(first, first + size))
        first += size
        generations, complete = world.generations(blocks), first == world.num_blocks
        world.source_acts(world.source.exported(first - size, blocks, generations, complete=complete))
    world.source_acts(world.source.drew(FIRST))


def lend_all(world: World) -> None:
    """Everything comes from the prefix cache."""
    blocks = tuple(100 + index for index in range(world.num_blocks))
    world.source_acts(world.source.exported(0, blocks, world.generations(blocks), complete=True))


def run_undisturbed(world: World) -> None:
    """Deliver everything in order until nothing moves."""
    while world.digests or world.to_sink or world.pulls or world.to_source:
        if world.digests:
            world.digest(0)
        elif world.to_sink:
            world.deliver_to_sink(world.to_sink.pop(0))
        elif world.pulls:
            world.pull(0, corrupt=False, fail=False)
        else:
            world.deliver_to_source(world.to_source.pop(0))


def test_undisturbed_handoff_commits_once() -> None:
    """All blocks arrive, the first token starts the decode, the source lets go."""
    world = World()
    export_all(world, [2, 2, 1])
    run_undisturbed(world)
    assert world.committed == [FIRST]
    assert {block: 100 + block for block in range(5)} == world.received
    assert (world.sink.state, world.source.state, world.released) == (SinkState.COMMITTED, SourceState.COMMITTED, 1)


@pytest.mark.parametrize("start_block", [0, 3, 5])
def test_a_fetch_commits_without_a_token(start_block: int) -> None:
    """Blocks of the cache are final at once; the seal follows their digests, be there none; nothing is decoded."""
    world = World(start_block=start_block, use=Use.CACHE)
    lend_all(world)
    run_undisturbed(world)
    assert {block: 100 + block for block in range(start_block, 5)} == world.received
    assert world.committed == [None]
    assert (world.source.state, world.released) == (SourceState.COMMITTED, 1)


@pytest.mark.parametrize(("use", "token"), [(Use.DECODE, None), (Use.CACHE, FIRST)])
def test_a_seal_for_another_use_aborts(use: Use, token: Token | None) -> None:
    """Nothing is decoded without a first token, and nothing that was granted for the cache is decoded at all."""
    world = World(chunk_blocks=5, use=use)
    chunk = Chunk(0, 0, tuple(range(5)), digest_of(tuple(range(5))))
    world.sink_acts(world.sink.offered(chunk, Epoch("ep"), 0.0))
    world.pull(0, corrupt=False, fail=False)
    world.sink_acts(world.sink.sealed(Seal(HandoffId("h"), 1, 1, root_digest([chunk.digest]), token), Epoch("ep"), 0.0))
    assert (world.sink.state, world.committed) == (SinkState.ABORTED, [])


def by_generation(use: Use = Use.DECODE) -> World:
    """A handoff that waits for the source's word: everything pulled, nothing committed."""
    world = World(use=use, proof=Proof.GENERATION)
    export_all(world, [2, 2, 1]) if use is Use.DECODE else lend_all(world)
    assert world.digests == []
    while world.to_sink:
        world.deliver_to_sink(world.to_sink.pop(0))
    while world.pulls:
        world.pull(0, corrupt=False, fail=False)
    assert (world.sink.state, world.committed) == (SinkState.CONFIRMING, [])
    return world


@pytest.mark.parametrize("use", Use)
def test_commit_on_the_sources_word(use: Use) -> None:
    """Nobody digests anything; the source confirms, the sink commits, the source lets go."""
    world = by_generation(use)
    assert [Confirm(HandoffId("h"), 1)] == world.to_source
    run_undisturbed(world)
    assert world.committed == [FIRST if use is Use.DECODE else None]
    assert {block: 100 + block for block in range(5)} == world.received
    assert (world.source.state, world.released) == (SourceState.COMMITTED, 1)


def test_source_that_let_go_does_not_confirm() -> None:
    """It withdraws instead, and nothing is committed."""
    world = by_generation()
    world.let_go = True
    run_undisturbed(world)
    assert (world.sink.state, world.source.state) == (SinkState.ABORTED, SourceState.ABORTED)
    assert (world.committed, len(world.gave_up), world.released) == ([], 1, 1)


def test_source_whose_lease_ended_does_not_confirm() -> None:
    """What it says after that is nothing."""
    world = by_generation()
    world.source_acts(world.source.tick(LEASE_S))
    assert world.source.confirm_asked(world.generations(world.source.blocks)) == []


def test_word_of_another_start_of_the_source_is_nothing() -> None:
    """Only the granted epoch can confirm, and only once it was asked."""
    world = by_generation()
    assert world.sink.confirmed(Epoch("old"), 0.0) == []
    early = World(proof=Proof.GENERATION)
    assert early.sink.confirmed(Epoch("ep"), 0.0) == []
    assert early.sink.is_open


def test_lost_question_is_repeated_with_the_seal() -> None:
    """A control stream that broke and came back: seal again, question again."""
    world = by_generation()
    world.to_source.clear()
    world.source_acts(world.source.replay())
    run_undisturbed(world)
    assert world.committed == [FIRST]


def test_source_that_dies_before_it_confirms_takes_the_handoff_along() -> None:
    """Without digests nothing may be committed after its death."""
    world = by_generation()
    world.sink_acts(world.sink.source_lost())
    assert (world.sink.state, world.committed) == (SinkState.ABORTED, [])


def test_kv_that_was_let_go_is_not_granted_again() -> None:
    """Whatever the next sink rests its commit on: digests would be taken of somebody else's bytes."""
    world = World()
    export_all(world, [5])
    world.let_go = True
    second = msgspec.structs.replace(terms(1), attempt=2)
    noted = world.generations(world.source.blocks)
    world.source_acts(world.source.granted_again(second, Lease.start(0.0, LEASE_S, 600), noted))
    assert (world.source.state, world.released) == (SourceState.ABORTED, 1)
    assert world.to_sink[-1] == Withdraw(HandoffId("h"), 2, LET_GO)


def test_blocks_that_the_sink_has_are_not_sent() -> None:
    """Only the range after the sink's prefix travels."""
    world = World(start_block=3)
    export_all(world, [2, 2, 1])
    run_undisturbed(world)
    assert world.received == {3: 103, 4: 104}
    assert world.committed == [FIRST]


def test_first_token_that_ends_the_answer_ends_the_handoff() -> None:
    """Nothing is transferred, the promise is given back."""
    world = World()
    world.source_acts(world.source.exported(0, (100, 101), (0, 0), complete=False))
    world.source_acts(world.source.drew(msgspec.structs.replace(FIRST, finish=FinishReason.STOP)))
    world.digests.clear()
    run_undisturbed(world)
    assert (world.source.state, world.sink.state) == (SourceState.FINISHED, SinkState.ABORTED)
    assert (world.released, len(world.gave_up), world.committed) == (1, 1, [])


@settings(max_examples=400, deadline=None)
@given(data=st.data())
def test_any_network_commits_right_or_not_at_all(data: st.DataObject) -> None:
    """R1, R2, R4: commit only with every block right; both sides end by themselves; nothing is given back twice."""
    use, proof = data.draw(st.sampled_from(Use)), data.draw(st.sampled_from(Proof))
    chunk_blocks = data.draw(st.integers(1, 3))
    world = World(start_block=data.draw(st.integers(0, 4)), use=use, proof=proof, chunk_blocks=chunk_blocks)
    if use is Use.DECODE:
        export_all(world, data.draw(st.sampled_from([[5], [2, 3], [1, 1, 1, 1, 1], [4, 1]])))
    else:
        lend_all(world)
    for _ in range(data.draw(st.integers(0, 60))):
        disturb(world, data)
        assert len(world.committed) + len(world.gave_up) <= 1
        if world.committed:
            wanted = {block: 100 + block for block in range(world.start_block, 5)}
            assert wanted == world.received
        assert world.sink.is_open == (not world.committed and not world.gave_up)
        assert world.source.is_open == (world.released == 0)
    world.tick(LEASE_S + 600)
    assert not world.sink.is_open
    assert not world.source.is_open
    assert (world.released, len(world.committed) + len(world.gave_up)) == (1, 1)


def disturb(world: World, data: st.DataObject) -> None:
    """One random event."""
    event = data.draw(st.sampled_from(EVENTS))
    if event == "digest" and world.digests:
        world.digest(data.draw(st.integers(0, len(world.digests) - 1)))
    elif event in {"sink", "repeat", "stale", "lose"} and world.to_sink:
        index = data.draw(st.integers(0, len(world.to_sink) - 1))
        message = world.to_sink[index] if event == "repeat" else world.to_sink.pop(index)
        if event != "lose":
            world.deliver_to_sink(message, "old" if event == "stale" else "ep")
    elif event in {"pull", "corrupt", "fail"} and world.pulls:
        index = data.draw(st.integers(0, len(world.pulls) - 1))
        world.pull(index, corrupt=event == "corrupt" and world.proof is Proof.DIGEST, fail=event == "fail")
    elif event == "let go" and data.draw(st.integers(0, 9)) == 0 and world.proof is Proof.GENERATION:
        world.let_go = True
    elif event == "source" and world.to_source:
        world.deliver_to_source(world.to_source.pop(data.draw(st.integers(0, len(world.to_source) - 1))))
    elif event == "cancel" and data.draw(st.integers(0, 9)) == 0:
        world.sink_acts(world.sink.cancelled("cancelled"))
    elif event == "lost" and data.draw(st.integers(0, 9)) == 0:
        world.sink_acts(world.sink.source_lost())
    elif event == "tick":
        world.tick(data.draw(st.floats(0, 3)))
    elif event == "replay":
        world.source_acts(world.source.replay())


def test_corrupt_chunk_is_asked_for_once_more() -> None:
    """The first corruption costs a repetition, the second the handoff."""
    for times, state in ((1, SinkState.COMMITTED), (2, SinkState.ABORTED)):
        world = World(chunk_blocks=5)
        export_all(world, [5])
        world.digest(0)
        for message in list(world.to_sink):
            world.deliver_to_sink(message)
        world.to_sink.clear()
        for _ in range(times):
            world.pull(0, corrupt=True, fail=False)
            while world.to_source:
                world.deliver_to_source(world.to_source.pop(0))
            while world.to_sink:
                world.deliver_to_sink(world.to_sink.pop(0))
        run_undisturbed(world)
        assert state == world.sink.state


def test_giving_up_while_bytes_land_says_so() -> None:
    """A pull in flight means quarantine; none means that blocks are free at once."""
    world = World(chunk_blocks=5)
    export_all(world, [5])
    world.digest(0)
    world.deliver_to_sink(world.to_sink.pop(0))
    world.sink_acts(world.sink.cancelled("gone"))
    assert [action.landing for action in world.gave_up] == [True]
    world.pull(0, corrupt=False, fail=False)
    assert world.sink.state == SinkState.ABORTED


def test_chunk_outside_the_grant_is_refused() -> None:
    """A source cannot widen what it was granted, nor send a block twice, nor change its mind about one."""
    inside = Chunk(0, 2, (1, 2), 5)
    for bad in (Chunk(1, 1, (1,), 5), Chunk(1, 4, (1, 2), 5), Chunk(1, 3, (9,), 5), Chunk(0, 2, (1, 2), 6)):
        world = World(start_block=2)
        world.sink_acts(world.sink.offered(inside, Epoch("ep"), 0.0))
        world.sink_acts(world.sink.offered(bad, Epoch("ep"), 0.0))
        assert world.sink.state == SinkState.ABORTED


def test_seal_that_does_not_match_never_commits() -> None:
    """A root over other digests, or a seal over fewer blocks than the prompt has, aborts."""
    for num_blocks, root in ((5, b"x"), (4, None)):
        world = World(chunk_blocks=5)
        chunk = Chunk(0, 0, tuple(range(num_blocks)), digest_of(tuple(range(num_blocks))))
        world.sink_acts(world.sink.offered(chunk, Epoch("ep"), 0.0))
        world.pull(0, corrupt=False, fail=False)
        seal = Seal(HandoffId("h"), 1, 1, root or root_digest([chunk.digest]), FIRST)
        world.sink_acts(world.sink.sealed(seal, Epoch("ep"), 0.0))
        assert world.sink.state == SinkState.ABORTED


def test_lease_is_renewed_by_signs_of_life_up_to_its_cap() -> None:
    """Silence ends it after its duration; heartbeats carry it to the request's own deadline and no further."""
    lease = Lease.start(0.0, 10.0, 25.0)
    lease.renew(9.0)
    assert not lease.expired(18.9)
    lease.renew(18.0)
    lease.renew(24.0)
    assert lease.expired(25.0)
    late = Lease.start(0.0, 10.0, 25.0)
    late.renew(11.0)
    assert late.expired(11.0)


def test_source_that_sealed_may_die() -> None:
    """In digest mode what was sealed can still be pulled and committed after the source's death."""
    world = World()
    export_all(world, [5])
    while world.digests:
        world.digest(0)
    while world.to_sink:
        world.deliver_to_sink(world.to_sink.pop(0))
    world.sink_acts(world.sink.source_lost())
    while world.pulls:
        world.pull(0, corrupt=False, fail=False)
    assert world.committed == [FIRST]


def test_another_sink_gets_the_same_kv() -> None:
    """The first sink dies after the seal: the next attempt sends everything that the second one lacks, and seals."""
    world = World(start_block=3)
    export_all(world, [2, 2, 1])
    while world.digests:
        world.digest(0)
    late = Digest(0, (103, 104))
    world.to_sink.clear()
    second = msgspec.structs.replace(terms(1), attempt=2, sink=WorkerId("e"), sink_epoch=Epoch("ee"))
    noted = world.generations(world.source.blocks)
    world.source_acts(world.source.granted_again(second, Lease.start(0.0, LEASE_S, 600), noted))
    world.source_acts(world.source.digested(late.index, late.blocks, digest_of(late.blocks)))
    assert world.to_sink == []
    world.sink = SinkHandoff(second, world.sink.request, Lease.start(0.0, LEASE_S, 600), max_pulls=2)
    run_undisturbed(world)
    assert world.received == {1: 101, 2: 102, 3: 103, 4: 104}
    assert (world.committed, world.source.state) == ([FIRST], SourceState.COMMITTED)
    assert world.source.granted_again(second, Lease.start(0.0, LEASE_S, 600), noted) == []
