"""Cached KV that another worker fetches: held while it is read, and ordinary cache again afterwards. Pure.

Only KV of the engine's own numeric provenance is lent: the sink will find it as its own.
"""

from twinfer.core.ids import RequestId
from twinfer.core.request import GenerationRequest
from twinfer.engine.prefix import PrefixCache
from twinfer.engine.sequence import Purpose, TokenSequence


class LendLedger:
    """Blocks of all prefixes under way to other workers."""

    def __init__(self, prefixes: PrefixCache) -> None:
        self._prefixes = prefixes
        self._lent: dict[RequestId, list[int]] = {}

    @property
    def num_blocks(self) -> int:
        """Blocks held, those held twice counted twice."""
        return sum(map(len, self._lent.values()))

    def lend(self, request: GenerationRequest, num_blocks: int, now: float) -> tuple[int, ...] | None:
        """Hold the first blocks of the request's prompt, all full; ``None`` when they are not all here."""
        if request.request_id not in self._lent:
            sequence = TokenSequence(request, Purpose.EXPORT, arrived=now)
            held = self._prefixes.hold(sequence, num_blocks * self._prefixes.block_tokens)
            if len(held) < num_blocks:
                self._prefixes.pool.release(held)
                return None
            self._lent[request.request_id] = held
        return tuple(self._lent[request.request_id])

    def release(self, request_id: RequestId) -> None:
        """They were passed, or will not be. Safe to repeat, and for what was never lent."""
        self._prefixes.pool.release(self._lent.pop(request_id, ()))
