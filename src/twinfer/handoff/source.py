"""The source's side of one handoff, as a pure state machine.

    ACCEPTED ──first chunk──> STREAMING ──all chunks digested, first token known──> SEALED ──committed──> COMMITTED
        └─────────────────────────┴───────────────────────────────────────────────────┴──> FINISHED, ABORTED, EXPIRED

1. The grant was checked before any compute; the prompt is queued on the engine. For a fetch nothing is computed: the
   blocks come from the prefix cache, are all final at once, and there is no first token.
2. Blocks that became final, in this worker's own layout, are cut into chunks. Each is digested at once, before anything
   else may touch it, and then offered. Blocks that the sink has already are left out.
   Where the sink rests its commit on the generations of blocks instead, they are offered without a digest.
3. The seal follows the last chunk and carries the first token. Asked to confirm, the source does so only if it is still
   sealed and no block was let go since it became final.
4. Committed, withdrawn or expired: the blocks turn into ordinary cache, and reads are refused from then on.
5. When the sink died before it committed, another one may be granted the same KV as the next attempt: everything is
   cut, digested and offered again, and nothing is computed twice. Here too no block may have been let go.
"""

from dataclasses import dataclass, field
from enum import StrEnum

from twinfer.core.grant import GrantTerms, Proof, Use
from twinfer.core.manifest import Chunk, root_digest
from twinfer.core.messages import Confirmed, Offer, Seal, Withdraw
from twinfer.core.request import GenerationRequest
from twinfer.core.tokens import Token
from twinfer.handoff.actions import Digest, Release, Show, SourceAction, TellSink
from twinfer.handoff.lease import Lease


class SourceState(StrEnum):
    """Where a handoff is, seen from the source."""

    ACCEPTED = "accepted"
    STREAMING = "streaming"
    SEALED = "sealed"
    COMMITTED = "committed"
    FINISHED = "finished"
    ABORTED = "aborted"
    EXPIRED = "expired"


LET_GO = "reused: a block was let go before it was passed on"
OPEN_STATES = frozenset({SourceState.ACCEPTED, SourceState.STREAMING, SourceState.SEALED})


@dataclass(slots=True)
class SourceHandoff:
    """One handoff from this worker.

    Attributes:
        terms: what the sink granted.
        request: whose prompt is passed.
        lease: when it ends by itself.
        chunk_blocks: blocks in one chunk, at most.
    """

    terms: GrantTerms
    request: GenerationRequest
    lease: Lease
    chunk_blocks: int
    state: SourceState = SourceState.ACCEPTED
    _blocks: list[int] = field(default_factory=list)
    _generations: list[int] = field(default_factory=list)
    _pending: list[tuple[int, tuple[int, ...]]] = field(default_factory=list)
    _chunks: dict[int, Chunk] = field(default_factory=dict)
    _complete: bool = False
    _first_token: Token | None = None

    @property
    def is_open(self) -> bool:
        """Whether it still holds blocks."""
        return self.state in OPEN_STATES

    @property
    def blocks(self) -> tuple[int, ...]:
        """All that became final so far, in order."""
        return tuple(self._blocks)

    def exported(
        self, first_block: int, blocks: tuple[int, ...], generations: tuple[int, ...], *, complete: bool
    ) -> list[SourceAction]:
        """Blocks of the prompt became final, ``first_block`` being the first one's index within it."""
        if not self.is_open:
            return []
        del self._blocks[first_block:], self._generations[first_block:]
        self._blocks += blocks
        self._generations += generations
        self._complete = self._complete or complete
        return [*self._cut(first_block), *self._seal_if_complete()]

    def digested(self, index: int, blocks: tuple[int, ...], digest: int) -> list[SourceAction]:
        """The digest of a chunk's bytes, taken when they became final. One of an earlier attempt may come late."""
        wanted = self.is_open and self.terms.proof is Proof.DIGEST and index < len(self._pending)
        if not wanted or self._pending[index][1] != blocks:
            return []
        return [self._offer(index, digest), *self._seal_if_complete()]

    def confirm_asked(self, generations: tuple[int, ...]) -> list[SourceAction]:
        """The sink has pulled everything; these are the generations of ``blocks`` now."""
        if self.state is not SourceState.SEALED:
            return []
        if generations != tuple(self._generations):
            return self._end(SourceState.ABORTED, LET_GO)
        return [TellSink(Confirmed(self.terms.handoff, self.terms.attempt))]

    def granted_again(self, terms: GrantTerms, lease: Lease, generations: tuple[int, ...]) -> list[SourceAction]:
        """Another sink was granted the same KV, as a later attempt; these are the generations of ``blocks`` now."""
        if not self.is_open or terms.attempt <= self.terms.attempt or terms.use is not self.terms.use:
            return []
        self.terms, self.lease = terms, lease
        if generations != tuple(self._generations):
            return self._end(SourceState.ABORTED, LET_GO)
        self.state = SourceState.ACCEPTED
        self._pending.clear()
        self._chunks.clear()
        return [*self._cut(0), *self._seal_if_complete()]

    def drew(self, token: Token) -> list[SourceAction]:
        """The first token; if it ends the answer there is nothing to pass on."""
        if not self.is_open:
            return []
        if token.finish is not None:
            return self._end(SourceState.FINISHED, "finished: the first token ends the answer")
        self._first_token = token
        return self._seal_if_complete()

    def asked_again(self, index: int) -> list[SourceAction]:
        """The sink received a chunk corrupt or short."""
        chunk = self._chunks.get(index)
        if not self.is_open or chunk is None:
            return []
        return [TellSink(Offer(self.terms.handoff, self.terms.attempt, chunk))]

    def committed(self) -> list[SourceAction]:
        """The sink has it all."""
        if not self.is_open:
            return []
        self.state = SourceState.COMMITTED
        return [Release()]

    def gone(self) -> list[SourceAction]:
        """The sink gave up."""
        if not self.is_open:
            return []
        self.state = SourceState.ABORTED
        return [Release()]

    def cancelled(self, reason: str) -> list[SourceAction]:
        """The gateway, or this worker's engine, gave up."""
        return self._end(SourceState.ABORTED, reason) if self.is_open else []

    def heard(self, now: float) -> None:
        """A heartbeat of the granting sink epoch named this handoff."""
        self.lease.renew(now)

    def tick(self, now: float) -> list[SourceAction]:
        """Time passes."""
        if self.is_open and self.lease.expired(now):
            return self._end(SourceState.EXPIRED, "expired: the lease ran out before commit")
        return []

    def replay(self) -> list[SourceAction]:
        """Everything said so far, once more, for a control stream that broke and came back."""
        if not self.is_open:
            return []
        offers: list[SourceAction] = [
            TellSink(Offer(self.terms.handoff, self.terms.attempt, chunk)) for chunk in self._chunks.values()
        ]
        return offers + (self._seal() if self.state is SourceState.SEALED else [])

    def _offer(self, index: int, digest: int) -> TellSink:
        chunk = self._chunks[index] = Chunk(index, *self._pending[index], digest)
        return TellSink(Offer(self.terms.handoff, self.terms.attempt, chunk))

    def _cut(self, first_block: int) -> list[SourceAction]:
        """Chunks of the final blocks from ``first_block`` on, without those that the sink has."""
        actions: list[SourceAction] = []
        for start in range(max(first_block, self.terms.start_block), len(self._blocks), self.chunk_blocks):
            part = tuple(self._blocks[start : start + self.chunk_blocks])
            index = len(self._pending)
            self._pending.append((start, part))
            if self.terms.proof is Proof.DIGEST:
                actions.append(Digest(index, part))
            else:
                actions += [Show(part), self._offer(index, 0)]
        if actions:
            self.state = SourceState.STREAMING
        return actions

    def _seal_if_complete(self) -> list[SourceAction]:
        drawn = self._first_token is not None or self.terms.use is Use.CACHE
        whole = self._complete and drawn and len(self._chunks) == len(self._pending)
        if not whole or self.state is SourceState.SEALED:
            return []
        self.state = SourceState.SEALED
        return self._seal()

    def _seal(self) -> list[SourceAction]:
        root = root_digest(self._chunks[index].digest for index in range(len(self._chunks)))
        seal = Seal(self.terms.handoff, self.terms.attempt, len(self._chunks), root, self._first_token)
        return [TellSink(seal)]

    def _end(self, state: SourceState, reason: str) -> list[SourceAction]:
        self.state = state
        return [TellSink(Withdraw(self.terms.handoff, self.terms.attempt, reason)), Release()]
