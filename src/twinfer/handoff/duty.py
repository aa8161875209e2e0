"""What a worker does about new work, as a pure state machine.

    SERVING ──told to turn or to leave──> DRAINING ──its time over──> HANDING BACK
       ^                                     └─────nothing is open─────┴──> turned, epoch + 1, or gone
       └───────────────────────────────────────────────────────────────────────┘

The epoch rises only when nothing is open, so that nothing begun before a change goes on after it: whatever names the
epoch before is refused.
"""

from enum import StrEnum

import msgspec

from twinfer.core.capabilities import Role, WorkerIdentity
from twinfer.core.ids import next_epoch


class DutyState(StrEnum):
    """Where a worker is."""

    SERVING = "serving"
    DRAINING = "draining"
    HANDING_BACK = "handing back"
    GONE = "gone"


class Order(StrEnum):
    """What to do now."""

    WAIT = "wait"
    HAND_BACK = "hand back"
    """Give up what is open, once."""
    TURN = "turn"
    """``identity`` is a new one: tell everybody."""
    GO = "go"
    """Nothing is open, and nothing will be."""


class Duty:
    """One worker's.

    Attributes:
        identity: who it is now.
        state: where it is.
        goal: the role it turns to; ``None`` while it serves, or leaves.
    """

    def __init__(self, identity: WorkerIdentity, drain_s: float) -> None:
        self.identity = identity
        self.state = DutyState.SERVING
        self.goal: Role | None = None
        self._drain_s = drain_s
        self._until = 0.0

    @property
    def takes_new(self) -> bool:
        """Whether new work is taken."""
        return self.state is DutyState.SERVING

    def turn(self, role: Role, now: float) -> str | None:
        """Told to serve other phases; why that cannot be, in words, or ``None``."""
        if self.takes_new and role is not self.identity.role:
            self.state, self.goal, self._until = DutyState.DRAINING, role, now + self._drain_s
        elif not self.takes_new and role is not self.goal:
            return f"{self.identity.worker} {self._occupation()}; ask again when it is done"
        return None

    def leave(self, now: float, within_s: float | None = None) -> None:
        """Told to stop; that comes before any turn. Told so again, the earlier end counts.

        Args:
            within_s: how long what is open may take, in place of the usual time.
        """
        until = now + (self._drain_s if within_s is None else within_s)
        leaves_already = not self.takes_new and self.goal is None
        self._until = min(until, self._until) if leaves_already else until
        if self.takes_new:
            self.state = DutyState.DRAINING
        self.goal = None

    def look(self, num_open: int, now: float) -> Order:
        """What to do, with so much under way."""
        if self.state in (DutyState.SERVING, DutyState.GONE):
            return Order.WAIT
        if num_open == 0:
            return self._end()
        if self.state is DutyState.DRAINING and now >= self._until:
            self.state = DutyState.HANDING_BACK
            return Order.HAND_BACK
        return Order.WAIT

    def _end(self) -> Order:
        if self.goal is None:
            self.state = DutyState.GONE
            return Order.GO
        epoch = next_epoch(self.identity.epoch)
        self.identity = msgspec.structs.replace(self.identity, role=self.goal, epoch=epoch)
        self.state, self.goal = DutyState.SERVING, None
        return Order.TURN

    def _occupation(self) -> str:
        return "leaves" if self.goal is None else f"is turning to {self.goal.value}"
