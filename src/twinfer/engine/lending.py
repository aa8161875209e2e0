"""Cached KV that another worker fetches: held while it is read, and ordinary cache again afterwards. Pure.

Only KV of the engine's own numeric provenance is lent: the sink will find it as its own. What the pool does not have
any more is lent out of the host tier, whose slots are numbered on from the pool's blocks.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from twinfer.core.ids import RequestId
from twinfer.core.request import GenerationRequest
from twinfer.engine.prefix import PrefixCache
from twinfer.engine.sequence import Purpose, TokenSequence
from twinfer.kv.host_tier import HostHold


@dataclass(frozen=True, slots=True)
class Loan:
    """Blocks of the pool, and perhaps slots of the host tier after them, that are held for one request."""

    held: tuple[int, ...]
    on_host: HostHold | None = None

    @property
    def blocks(self) -> tuple[int, ...]:
        """All of them, in the prompt's order."""
        return self.held if self.on_host is None else (*self.held, *self.on_host.slots)


class LendLedger:
    """Blocks of all prefixes under way to other workers."""

    def __init__(self, prefixes: PrefixCache) -> None:
        self._prefixes = prefixes
        self._lent: dict[RequestId, Loan] = {}

    @property
    def num_blocks(self) -> int:
        """Blocks held, those held twice counted twice."""
        return sum(len(loan.blocks) for loan in self._lent.values())

    def lend(self, request: GenerationRequest, num_blocks: int, now: float) -> tuple[int, ...] | None:
        """Hold the first blocks of the request's prompt, all full; ``None`` when they are not all here."""
        if request.request_id not in self._lent:
            loan = self._hold(TokenSequence(request, Purpose.EXPORT, arrived=now), num_blocks)
            if len(loan.blocks) < num_blocks:
                self._give_up(loan)
                return None
            self._lent[request.request_id] = loan
        return self._lent[request.request_id].blocks

    def count_on_host(self, request: GenerationRequest, num_tokens: int) -> int:
        """Tokens that the host tier could lend after the first ``num_tokens``, which the pool has."""
        size = self._prefixes.block_tokens
        start, end = num_tokens // size, (len(request.prompt) - 1) // size
        sequence = TokenSequence(request, Purpose.EXPORT, arrived=0.0)
        return size * self._prefixes.count_on_host(sequence, start, end)

    def release(self, request_id: RequestId) -> None:
        """They were passed, or will not be. Safe to repeat, and for what was never lent."""
        loan = self._lent.pop(request_id, None)
        if loan is not None:
            self._give_up(loan)

    def generations(self, blocks: Sequence[int]) -> tuple[int, ...]:
        """How often each of these blocks or slots was let go, or got other content."""
        pool, host = self._prefixes.pool, self._prefixes.host
        if host is None or all(block < host.first for block in blocks):
            return pool.generations(blocks)
        return tuple((host if block >= host.first else pool).generations((block,))[0] for block in blocks)

    def _hold(self, sequence: TokenSequence, num_blocks: int) -> Loan:
        held = tuple(self._prefixes.hold(sequence, num_blocks * self._prefixes.block_tokens))
        return Loan(held, self._prefixes.hold_on_host(sequence, len(held), num_blocks, sequence.deadline))

    def _give_up(self, loan: Loan) -> None:
        self._prefixes.pool.release(loan.held)
        if loan.on_host is not None and self._prefixes.host is not None:
            self._prefixes.host.release(loan.on_host)
