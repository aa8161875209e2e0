"""KV that another worker computed, from promise to commit: the sink's accounting, pure.

    promise ──bind──> bound ──commit──> an ordinary sequence, or cached blocks
       └──────────────┴───withdraw──> free, cached, or quarantined until nothing can land any more

The prefix found here at promise time stays held, so that the source need not send it.
"""

from dataclasses import dataclass, field

from twinfer.core.grant import Use
from twinfer.core.ids import RequestId
from twinfer.core.request import GenerationRequest
from twinfer.core.tokens import Token
from twinfer.engine.loop import EngineLoop
from twinfer.engine.preempt import Claim
from twinfer.engine.sequence import Purpose, TokenSequence


@dataclass(slots=True)
class _Ingest:
    sequence: TokenSequence
    prefix: list[int]
    to_come: range
    num_promised: int
    bound: list[int] = field(default_factory=list)


class IngestLedger:
    """Promises and bound blocks of all open handoffs into one engine loop."""

    def __init__(self, loop: EngineLoop) -> None:
        self._loop = loop
        self._open: dict[RequestId, _Ingest] = {}

    def __len__(self) -> int:
        return len(self._open)

    def promise(self, request: GenerationRequest, now: float, foreign: str, use: Use) -> range | None:
        """Set room aside for the prompt, only its full blocks if it is for the cache.

        Returns the positions that are to come, those before being here already, or ``None`` if there is no room.
        ``foreign`` is the numeric provenance of what will come, unless it is the engine's own.
        """
        size, pool = self._loop.block_tokens, self._loop.pool
        if request.request_id in self._open:
            return self._open[request.request_id].to_come
        self._loop.check(request)
        sequence = TokenSequence(request, Purpose.ANSWER, arrived=now, foreign=foreign)
        num_tokens = len(request.prompt)
        end = num_tokens // size * size if use is Use.CACHE else num_tokens
        prefix = self._loop.prefixes.hold(sequence, end if use is Use.CACHE else end - 1)
        num_promised = -(-end // size) - len(prefix)
        if not self._loop.promise(num_promised):
            pool.release(prefix)
            return None
        sequence.cached_tokens = len(prefix) * size
        to_come = range(sequence.cached_tokens, end)
        self._open[request.request_id] = _Ingest(sequence, prefix, to_come, num_promised)
        return to_come

    def claim(self, request: GenerationRequest | None) -> None:
        """Room for this prompt comes before what waits in the queue with a lower tier; for none with ``None``."""
        if request is None:
            self._loop.claim(None)
        else:
            self._loop.claim(Claim(-(-len(request.prompt) // self._loop.block_tokens), request.tier))

    def bind(self, request_id: RequestId) -> tuple[int, ...]:
        """Blocks for the promise, chosen once."""
        ingest = self._open[request_id]
        if ingest.num_promised:
            ingest.bound = self._loop.pool.bind(ingest.num_promised)
            ingest.num_promised = 0
        return tuple(ingest.bound)

    def commit(self, request_id: RequestId, first_token: Token | None, now: float) -> None:
        """The bound blocks hold the prompt's KV: from now on it is a sequence like any other, or without a first token
        cached like that of one which has ended."""
        ingest = self._open.pop(request_id)
        sequence = ingest.sequence
        sequence.blocks = ingest.prefix + ingest.bound
        sequence.mixed = bool(sequence.foreign)
        sequence.num_computed = ingest.to_come.stop
        if first_token is None:
            self._loop.prefixes.publish(sequence)
            self._loop.pool.release(sequence.blocks)
            return
        sequence.output.append(first_token.token_id)
        sequence.first_scheduled = sequence.first_token = sequence.last_token = now
        self._loop.resume(sequence)

    def withdraw(self, request_id: RequestId, *, landing: bool) -> tuple[int, ...]:
        """Give everything back; with ``landing``, bound blocks go to quarantine and are returned."""
        ingest = self._open.pop(request_id, None)
        if ingest is None:
            return ()
        pool = self._loop.pool
        pool.release(ingest.prefix)
        pool.unpromise(ingest.num_promised)
        if not landing:
            pool.release(ingest.bound)
            return ()
        pool.quarantine(ingest.bound)
        return tuple(ingest.bound)
