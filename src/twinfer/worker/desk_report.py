"""What one desk says of its open handoffs."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from twinfer.core.load import Counters
from twinfer.handoff.lease import Lease


@dataclass(frozen=True, slots=True)
class DeskReport:
    """A desk at one moment.

    Attributes:
        states: number of open handoffs by state, with the desk's side before it.
        oldest_held_s: age of the oldest.
        longest_silence_s: since when the most silent peer of one was not heard of; leases keep it below their duration.
        counters: the desk's counts since its start.
    """

    states: dict[str, int]
    oldest_held_s: float
    longest_silence_s: float
    counters: Counters


def describe(handoffs: Iterable[tuple[str, Lease]], counts: Mapping[str, int], now: float) -> DeskReport:
    """The report over these open handoffs: state and lease of each."""
    listed = list(handoffs)
    return DeskReport(
        states=dict(Counter(state for state, _ in listed)),
        oldest_held_s=max((now - lease.since for _, lease in listed), default=0.0),
        longest_silence_s=max((now - lease.heard for _, lease in listed), default=0.0),
        counters=Counters(**counts),
    )
