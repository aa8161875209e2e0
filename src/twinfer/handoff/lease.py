"""A deadline that hearing from the peer moves on, never past a hard cap (rule R4: every held resource has one).

Each side keeps its leases on its own monotonic clock; only a peer's sign of life for this very handoff extends one.
"""

from dataclasses import dataclass


@dataclass(slots=True)
class Lease:
    """When a holding ends by itself.

    Attributes:
        duration_s: silence that is tolerated.
        cap: the request's own deadline; no sign of life reaches past it.
        deadline: now the earlier of both.
        since: when the holding began, for its age in the metrics.
        heard: when the peer last gave a sign of life for it; the beginning, if it never did.
    """

    duration_s: float
    cap: float
    deadline: float
    since: float
    heard: float

    @classmethod
    def start(cls, now: float, duration_s: float, request_s: float) -> "Lease":
        """A lease that begins now, for a request that may take ``request_s`` in all."""
        cap = now + request_s
        return cls(duration_s, cap, min(now + duration_s, cap), now, now)

    def renew(self, now: float) -> None:
        """The peer was heard of; an expired lease stays expired."""
        if not self.expired(now):
            self.deadline = min(now + self.duration_s, self.cap)
            self.heard = now

    def silent(self, now: float) -> bool:
        """Whether the peer was not heard of for as long as is tolerated."""
        return now - self.heard >= self.duration_s

    def expired(self, now: float) -> bool:
        """Whether what it covers must be given up."""
        return now >= self.deadline
