"""The engine contract: what a worker drives, whatever computes behind it.

An engine is stepped by one thread. Everything else may be called from any thread at any time, returns at once, and
takes effect between steps.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from twinfer.core.block_events import BlockEvents
from twinfer.core.capabilities import Capabilities
from twinfer.core.grant import Use
from twinfer.core.ids import RequestId
from twinfer.core.load import LoadReport
from twinfer.core.messages import FailureKind
from twinfer.core.request import GenerationRequest
from twinfer.core.tokens import Timings, Token


@dataclass(frozen=True, slots=True)
class Exported:
    """Blocks of a prefill-only sequence that became final.

    Attributes:
        request_id: whose they are.
        first_block: index of the first of them within the sequence.
        blocks: pool blocks, in sequence order.
        generations: theirs at that moment.
        complete: no more will follow; the first token comes in the same outcome.
    """

    request_id: RequestId
    first_block: int
    blocks: tuple[int, ...]
    generations: tuple[int, ...]
    complete: bool


@dataclass(frozen=True, slots=True)
class Failure:
    """A request that the engine gave up."""

    request_id: RequestId
    kind: FailureKind
    reason: str


@dataclass(frozen=True, slots=True)
class StepOutcome:
    """What one step brought, for the worker to pass on."""

    tokens: tuple[Token, ...] = ()
    finished: tuple[tuple[RequestId, Timings], ...] = ()
    failed: tuple[Failure, ...] = ()
    exported: tuple[Exported, ...] = ()


class KVExport(Protocol):
    """The source's side of a handoff: blocks of prefill-only sequences or of the cache, held until released."""

    def submit(self, request: GenerationRequest) -> None:
        """Compute the prompt and the first token, and hold the KV.

        Raises:
            InvalidRequest: the prompt does not fit this engine.
            CapacityError: the queue is full, or parked prompts hold too much of the pool already.
        """
        ...

    def lend(self, request: GenerationRequest, num_blocks: int) -> tuple[int, ...] | None:
        """Hold that many cached blocks of the engine's own, from the prompt's first; ``None`` when not all are here.
        Those of the host tier come after the pool's in the worker's memory.

        Raises:
            CapacityError: handoffs hold too much of the pool already.
        """
        ...

    def count_on_host(self, request: GenerationRequest, num_tokens: int) -> int:
        """Tokens of the prompt that could be lent after these, which are in the pool, though they are not there."""
        ...

    def generations(self, blocks: Sequence[int]) -> tuple[int, ...]:
        """How often each of these blocks was let go by all its holders, or got other content."""
        ...

    def release(self, request_id: RequestId) -> None:
        """Turn what is held into ordinary cache; a computation still under way is cancelled. Safe to repeat."""
        ...


class KVIngest(Protocol):
    """The sink's side: promise, bind, fill, commit. Nothing is attendable, nor findable, before commit."""

    def promise(self, request: GenerationRequest, foreign: str = "", use: Use = Use.DECODE) -> range | None:
        """Promise room for the prompt, only its full blocks for the cache.

        Returns the positions that are to come: those before are here already, and stay held. ``None`` without room.
        ``foreign`` is the numeric provenance of the KV that will come, unless that is the engine's own. Then what is
        here already may be of it too, and neither what comes nor what is computed on it is found as the engine's own.

        Raises:
            InvalidRequest: the prompt does not fit this engine.
        """
        ...

    def claim(self, request: GenerationRequest | None, ask_again: Callable[[], None] | None = None) -> None:
        """This prompt is the first of those that wait for room, or none does.

        The engine keeps room for it from what waits with a lower tier; for an urgent one flex answers give theirs up.
        As long as it waits, ``ask_again`` is called by the engine's thread whenever a step begins, or might: what ended
        or gave way before left room, and the step need not end for it to be promised.
        """
        ...

    def bind(self, request_id: RequestId) -> tuple[int, ...]:
        """Turn the promise into pool blocks, one for every block of the prompt after the prefix already here."""
        ...

    def commit(self, request_id: RequestId, first_token: Token | None) -> None:
        """The blocks hold the prompt's KV: decode on from the first token; without one they become ordinary cache."""
        ...

    def withdraw(self, request_id: RequestId, *, landing: bool) -> tuple[int, ...]:
        """Give up before commit. With ``landing``, bytes may still arrive: bound blocks go to quarantine and are
        returned for :meth:`cleanse`. Safe to repeat."""
        ...

    def cleanse(self, blocks: tuple[int, ...]) -> None:
        """Nothing can land in these any more: free them."""
        ...


class Engine(Protocol):
    """An engine with its own scheduler and block accounting."""

    @property
    def capabilities(self) -> Capabilities:
        """What it serves, constant over its life."""
        ...

    @property
    def exports(self) -> KVExport:
        """The source's side of its KV."""
        ...

    @property
    def ingests(self) -> KVIngest:
        """The sink's side of its KV."""
        ...

    def submit(self, request: GenerationRequest, emitted: tuple[int, ...] = (), foreign: str = "") -> None:
        """Generate here, both phases.

        Args:
            emitted: output tokens of an earlier attempt, which continue.
            foreign: numeric provenance, besides the engine's own, whose cached KV may stand for a prefix.

        Raises:
            InvalidRequest: prompt and output so far do not fit this engine.
            CapacityError: the queue is full.
        """
        ...

    def cancel(self, request_id: RequestId) -> None:
        """Forget a request, whatever its state; nothing more is reported of it. Safe to repeat."""
        ...

    def step(self) -> StepOutcome | None:
        """Compute one step; ``None`` when there was nothing to do. Only the engine's thread calls this."""
        ...

    def load(self) -> LoadReport:
        """The engine's part of the worker's report."""
        ...

    def block_events(self, since: int) -> BlockEvents:
        """Changes in the prefix cache from that number on, or all it holds where they are not kept."""
        ...
