"""The sink's side of one handoff, as a pure state machine.

    PROMISED ──offer──> RECEIVING ──seal and every chunk verified──> (CONFIRMING ──confirmed──>) COMMITTED
        └───────────────────┴──withdrawn, cancelled, corrupt──────────────┴──> ABORTED
        └───────────────────┴──lease over─────────────────────────────────┴──> EXPIRED

1. A reservation makes a promise of blocks and starts the lease.
2. The first offer binds the promise to blocks; every offered chunk is pulled, a bounded number at a time, in any order,
   and converted if the source's layout is another one.
3. A chunk whose digest differs is asked for once more; the second time the handoff is aborted.
4. Commit needs the seal, every chunk it counts, the digest of each, the root over all, and every block covered once.
   Nothing is attendable before (rule R1). A seal for decoding carries the first token, one for the cache none.
5. Where the proof is not the digest but the generation of the source's blocks, every chunk's digest is 0, and commit
   waits until the source has confirmed, after the last byte arrived, that it held the blocks all the while.
6. Giving up while bytes may still land quarantines the blocks until the transport is fenced (rule R3).
7. Whatever is late or repeated changes nothing; what comes after the end is answered with the end.
"""

from collections import deque
from dataclasses import dataclass, field
from enum import StrEnum

from twinfer.core.grant import GrantTerms, Proof, Use
from twinfer.core.ids import Epoch
from twinfer.core.manifest import Chunk, root_digest
from twinfer.core.messages import (
    Committed,
    Confirm,
    Confirmed,
    FailureKind,
    Gone,
    Offer,
    OfferAgain,
    Seal,
    Withdraw,
)
from twinfer.core.request import GenerationRequest
from twinfer.handoff.actions import Bind, Commit, GiveUp, Pull, SinkAction, TellSource
from twinfer.handoff.lease import Lease


class SinkState(StrEnum):
    """Where a handoff is, seen from the sink."""

    PROMISED = "promised"
    RECEIVING = "receiving"
    CONFIRMING = "confirming"
    COMMITTED = "committed"
    ABORTED = "aborted"
    EXPIRED = "expired"


OPEN_STATES = frozenset({SinkState.PROMISED, SinkState.RECEIVING, SinkState.CONFIRMING})


@dataclass(slots=True)
class SinkHandoff:
    """One handoff towards this worker.

    Attributes:
        terms: what was granted. Blocks are the wire's, which are the source's: what they become here is not this
            machine's concern.
        request: whose KV it is.
        lease: when it ends by itself.
        max_pulls: chunks in flight at once.
    """

    terms: GrantTerms
    request: GenerationRequest
    lease: Lease
    max_pulls: int
    state: SinkState = SinkState.PROMISED
    sealed_at: float | None = None
    committed_at: float | None = None
    _chunks: dict[int, Chunk] = field(default_factory=dict)
    _covered: set[int] = field(default_factory=set)
    _verified: set[int] = field(default_factory=set)
    _suspect: set[int] = field(default_factory=set)
    _resent: set[int] = field(default_factory=set)
    _queue: deque[int] = field(default_factory=deque)
    _pulling: set[int] = field(default_factory=set)
    _seal: Seal | None = None

    @property
    def num_resends(self) -> int:
        """Chunks that were asked for again."""
        return len(self._resent)

    @property
    def is_open(self) -> bool:
        """Whether it still holds a promise or blocks that are not a sequence's."""
        return self.state in OPEN_STATES

    def hear(self, message: Offer | Seal | Confirmed | Withdraw, source_epoch: Epoch, now: float) -> list[SinkAction]:
        """The source speaks of this attempt."""
        match message:
            case Offer():
                return self.offered(message.chunk, source_epoch, now)
            case Seal():
                return self.sealed(message, source_epoch, now)
            case Confirmed():
                return self.confirmed(source_epoch, now)
            case Withdraw():
                return self.withdrawn(message.reason)

    def offered(self, chunk: Chunk, source_epoch: Epoch, now: float) -> list[SinkAction]:
        """The source says that a chunk may be pulled."""
        if not self.is_open:
            return [self._epilogue()]
        if source_epoch != self.terms.source_epoch:
            return [TellSource(self._gone("stale: the offer comes from another start of the source"))]
        self.lease.renew(now)
        known = self._chunks.get(chunk.index)
        if known is not None:
            return self._offered_again(known, chunk)
        blocks = range(chunk.first_block, chunk.first_block + len(chunk.source_blocks))
        if not self._fits(blocks):
            return self._abort(SinkState.ABORTED, "widened: a chunk lies outside the granted range or overlaps")
        self._chunks[chunk.index] = chunk
        self._covered.update(blocks)
        self._queue.append(chunk.index)
        actions: list[SinkAction] = []
        if self.state is SinkState.PROMISED:
            self.state = SinkState.RECEIVING
            actions.append(Bind())
        return actions + self._pulls()

    def pulled(self, index: int, digest: int, now: float) -> list[SinkAction]:
        """A chunk arrived, and if ``digest``, that of its bytes as they lie here, is right, it is in its place."""
        self._pulling.discard(index)
        if not self.is_open:
            return []
        if digest == self._chunks[index].digest:
            self._verified.add(index)
            return self._commit_if_whole(now) or self._pulls()
        return self._suspected(index, "a chunk arrived corrupt twice")

    def pull_failed(self, index: int, reason: str) -> list[SinkAction]:
        """A chunk did not arrive whole."""
        self._pulling.discard(index)
        if not self.is_open:
            return []
        return self._suspected(index, f"a chunk could not be pulled: {reason}")

    def sealed(self, seal: Seal, source_epoch: Epoch, now: float) -> list[SinkAction]:
        """The source offered everything."""
        if not self.is_open:
            return [self._epilogue()]
        if source_epoch != self.terms.source_epoch:
            return [TellSource(self._gone("stale: the seal comes from another start of the source"))]
        self.lease.renew(now)
        if (seal.first_token is None) is not (self.terms.use is Use.CACHE):
            return self._abort(SinkState.ABORTED, f"widened: the seal is not one for use {self.terms.use.value}")
        if self._seal is None:
            self._seal = seal
            self.sealed_at = now
        return self._commit_if_whole(now)

    def confirmed(self, source_epoch: Epoch, now: float) -> list[SinkAction]:
        """The source held the blocks all the while."""
        if self.state is not SinkState.CONFIRMING or source_epoch != self.terms.source_epoch:
            return []
        self.lease.renew(now)
        return self._commit(now)

    def withdrawn(self, reason: str) -> list[SinkAction]:
        """The source will not complete it."""
        return self._abort(SinkState.ABORTED, reason, tell=False) if self.is_open else []

    def source_lost(self) -> list[SinkAction]:
        """The source's control stream ended. What it sealed may still be pulled and committed by digest."""
        if not self.is_open or (self._seal is not None and self.terms.proof is Proof.DIGEST):
            return []
        missing = "sealed" if self.terms.proof is Proof.DIGEST else "confirmed"
        reason = f"lost: the source went away before it {missing}"
        return self._abort(SinkState.ABORTED, reason, FailureKind.UNREACHABLE, tell=False)

    def cancelled(self, reason: str) -> list[SinkAction]:
        """The gateway, or this worker, no longer wants it."""
        return self._abort(SinkState.ABORTED, reason) if self.is_open else []

    def heard(self, now: float) -> None:
        """A heartbeat of the granted source epoch named this handoff."""
        self.lease.renew(now)

    def tick(self, now: float) -> list[SinkAction]:
        """Time passes."""
        if self.is_open and self.lease.expired(now):
            kind = FailureKind.UNREACHABLE if self.lease.silent(now) else FailureKind.HANDOFF
            return self._abort(SinkState.EXPIRED, "expired: the lease ran out before commit", kind)
        return []

    def _fits(self, blocks: range) -> bool:
        inside = self.terms.start_block <= blocks.start < blocks.stop <= self.terms.end_block
        return inside and self._covered.isdisjoint(blocks)

    def _offered_again(self, known: Chunk, chunk: Chunk) -> list[SinkAction]:
        if chunk != known:
            return self._abort(SinkState.ABORTED, "widened: a chunk was offered twice and differs")
        if chunk.index in self._suspect:
            self._suspect.discard(chunk.index)
            self._queue.append(chunk.index)
        return self._pulls()

    def _suspected(self, index: int, reason: str) -> list[SinkAction]:
        if index in self._resent:
            return self._abort(SinkState.ABORTED, f"integrity: {reason}")
        self._resent.add(index)
        self._suspect.add(index)
        again = OfferAgain(self.terms.handoff, self.terms.attempt, index)
        return [TellSource(again), *self._pulls()]

    def _pulls(self) -> list[SinkAction]:
        pulls: list[SinkAction] = []
        while self._queue and len(self._pulling) < self.max_pulls:
            index = self._queue.popleft()
            self._pulling.add(index)
            pulls.append(Pull(self._chunks[index]))
        return pulls

    def _commit_if_whole(self, now: float) -> list[SinkAction]:
        seal = self._seal
        if seal is None or len(self._verified) < seal.num_chunks:
            return []
        digests = [self._chunks[index].digest for index in sorted(self._chunks)]
        whole = len(self._covered) == self.terms.end_block - self.terms.start_block
        if len(digests) != seal.num_chunks or root_digest(digests) != seal.root or not whole:
            return self._abort(SinkState.ABORTED, "integrity: the seal does not match what was offered")
        if self.terms.proof is Proof.GENERATION:
            self.state = SinkState.CONFIRMING
            return [TellSource(Confirm(self.terms.handoff, self.terms.attempt))]
        return self._commit(now)

    def _commit(self, now: float) -> list[SinkAction]:
        assert self._seal is not None
        self.state = SinkState.COMMITTED
        self.committed_at = now
        return [Commit(self._seal.first_token), TellSource(Committed(self.terms.handoff, self.terms.attempt))]

    def _abort(
        self, state: SinkState, reason: str, kind: FailureKind = FailureKind.HANDOFF, *, tell: bool = True
    ) -> list[SinkAction]:
        self.state = state
        self._queue.clear()
        actions: list[SinkAction] = [GiveUp(bool(self._pulling), reason, kind)]
        if tell:
            actions.append(TellSource(self._gone(reason)))
        return actions

    def _epilogue(self) -> TellSource:
        if self.state is SinkState.COMMITTED:
            return TellSource(Committed(self.terms.handoff, self.terms.attempt))
        return TellSource(self._gone(f"the handoff is {self.state.value}"))

    def _gone(self, reason: str) -> Gone:
        return Gone(self.terms.handoff, self.terms.attempt, reason)
