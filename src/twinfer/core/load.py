"""What a worker reports about itself, several times a second and whenever asked."""

import msgspec

from twinfer.core.cost import NO_WORK, Backlog, LinkCost, StepCost
from twinfer.core.ids import WorkerId


class BlockCounts(msgspec.Struct, frozen=True):
    """Where a pool's blocks are: ``free + cached + live + quarantined = total``.

    ``promised`` blocks are a claim on free and cached ones, and ``pinned`` ones are cached or live: neither are blocks
    of their own.
    """

    total: int
    free: int
    cached: int
    live: int
    quarantined: int = 0
    promised: int = 0
    pinned: int = 0


class HostCounts(msgspec.Struct, frozen=True):
    """Where the slots of a host tier are: ``free + cached + held + filling = total``.

    ``held`` ones are being read, ``filling`` ones written.
    """

    total: int = 0
    free: int = 0
    cached: int = 0
    held: int = 0
    filling: int = 0


class Counters(msgspec.Struct, frozen=True):
    """Monotonic counts since the worker's start."""

    prefill_tokens: int = 0
    """Prompt positions computed."""
    cached_tokens: int = 0
    """Prompt positions found in the prefix cache instead."""
    decode_tokens: int = 0
    """Output tokens drawn by decode steps; the first token of a prompt counts as prefill's."""
    steps: int = 0
    preemptions: int = 0
    requests: int = 0
    failures: int = 0
    guessed_tokens: int = 0
    """Output tokens that were computed before it was known whether they would be drawn."""
    right_guesses: int = 0
    """Those that were, and saved a step each."""
    handoffs_out: int = 0
    handoffs_in: int = 0
    handoffs_again: int = 0
    """Sealed or computing KV granted to a second sink after the first died."""
    handoffs_aborted: int = 0
    handoffs_expired: int = 0
    pairs_refused: int = 0
    """Handoffs refused because the other worker's KV cannot be read here, or is not accepted."""
    integrity_failures: int = 0
    resends: int = 0
    fetches_in: int = 0
    """Prefixes that came from another worker into the prefix cache."""
    fetches_out: int = 0
    fetched_tokens: int = 0
    """Prompt positions in them."""
    kv_bytes_in: int = 0
    kv_bytes_out: int = 0
    host_tokens: int = 0
    """Prompt positions whose KV came back from the host tier; they are among the cached ones."""
    host_saved_blocks: int = 0
    """Blocks copied to the host tier."""
    host_evicted_blocks: int = 0
    """Blocks that gave way there."""
    host_bad_blocks: int = 0
    """Blocks whose digest had changed when they were brought back; their tokens were computed again."""


class LoadReport(msgspec.Struct, frozen=True):
    """One worker's state at one moment.

    Args:
        running: sequences in steps.
        waiting: sequences admitted to the queue only.
        waiting_tokens: prompt positions in the queue and not computed.
        handoffs: open handoffs by state.
        handoffs_by_transport: how many were committed here, fetches included, by the transport that brought their KV.
        grants_refused: how many, by the word that says why.
        peers_refused: callers that were turned away, by why: ``certificate``, ``role``, ``key`` or ``name``.
        oldest_held_s: age of the oldest block holding outside a running sequence.
        longest_silence_s: since when the most silent peer of an open handoff was not heard of.
        draining: nothing new is taken: the worker changes its role, or leaves.
        healthy: false when the reclaimer cannot reclaim, or the engine's thread is gone.
        backlog: prompt positions not computed yet, in the queue and under way.
        backlog_before: the part of it that comes before a new prompt, by its rank; empty: all of it, for each.
        yielding_blocks: held by flex answers that give them up for an urgent request.
        decode_rows: sequences that decode.
        decode_context: positions they look back to, summed.
        cost: of its steps; ``None`` until there were some.
        links: of transfers to here, by where they came from.
        host: slots of the host tier; all 0 without one.
    """

    blocks: BlockCounts
    counters: Counters
    running: int = 0
    waiting: int = 0
    waiting_tokens: int = 0
    handoffs: dict[str, int] = {}
    oldest_held_s: float = 0.0
    longest_silence_s: float = 0.0
    step_s: float = 0.0
    """Moving average of the time one step takes."""
    healthy: bool = True
    draining: bool = False
    handoffs_by_transport: dict[str, int] = {}
    grants_refused: dict[str, int] = {}
    peers_refused: dict[str, int] = {}
    backlog: Backlog = NO_WORK
    decode_rows: int = 0
    decode_context: int = 0
    cost: StepCost | None = None
    links: dict[WorkerId, LinkCost] = {}
    host: HostCounts = HostCounts()
    backlog_before: tuple[Backlog, ...] = ()
    yielding_blocks: int = 0
