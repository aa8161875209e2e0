"""KV that another worker computed, from promise to commit: the sink's accounting, pure.

    promise ──bind──> bound ──commit──> an ordinary sequence
       └──────────────┴───withdraw──> free, cached, or quarantined until nothing can land any more

The prefix found here at promise time stays held, so that the source need not send it.
"""

from dataclasses import dataclass, field

from twinfer.core.ids import RequestId
from twinfer.core.request import GenerationRequest
from twinfer.core.tokens import Token
from twinfer.engine.loop import EngineLoop
from twinfer.engine.sequence import Purpose, TokenSequence


@dataclass(slots=True)
class _Ingest:
    sequence: TokenSequence
    prefix: list[int]
    num_promised: int
    bound: list[int] = field(default_factory=list)


class IngestLedger:
    """Promises and bound blocks of all open handoffs into one engine loop."""

    def __init__(self, loop: EngineLoop) -> None:
        self._loop = loop
        self._open: dict[RequestId, _Ingest] = {}

    def __len__(self) -> int:
        return len(self._open)

    def promise(self, request: GenerationRequest, now: float, foreign: str) -> int | None:
        """Set room aside for the prompt; the number of its tokens that are here already, or ``None`` if full.

        ``foreign`` is the numeric provenance of what will come, unless it is the engine's own.
        """
        size, pool = self._loop.block_tokens, self._loop.pool
        if request.request_id in self._open:
            return len(self._open[request.request_id].prefix) * size
        self._loop.check(request.prompt)
        sequence = TokenSequence(request, Purpose.ANSWER, arrived=now, foreign=foreign)
        prefix = self._loop.prefixes.hold(sequence, len(request.prompt))
        num_promised = -(-len(request.prompt) // size) - len(prefix)
        if not pool.promise(num_promised):
            pool.release(prefix)
            return None
        sequence.cached_tokens = len(prefix) * size
        self._open[request.request_id] = _Ingest(sequence, prefix, num_promised)
        return sequence.cached_tokens

    def bind(self, request_id: RequestId) -> tuple[int, ...]:
        """Blocks for the promise, chosen once."""
        ingest = self._open[request_id]
        if ingest.num_promised:
            ingest.bound = self._loop.pool.bind(ingest.num_promised)
            ingest.num_promised = 0
        return tuple(ingest.bound)

    def commit(self, request_id: RequestId, first_token: Token, now: float) -> None:
        """The bound blocks hold the prompt's KV: from now on it is a sequence like any other."""
        ingest = self._open.pop(request_id)
        sequence = ingest.sequence
        sequence.blocks = ingest.prefix + ingest.bound
        sequence.mixed = bool(sequence.foreign)
        sequence.num_computed = len(sequence.request.prompt)
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
