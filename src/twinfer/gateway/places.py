"""Places for calls in work, by tier: flex is refused first, and the reserved tier has places of its own. Pure."""

from collections import deque

from twinfer.core.errors import CapacityError
from twinfer.core.service import Tier

SHORTEST_S, LONGEST_S = 1.0, 60.0
"""Between these a client is told to come back."""
REMEMBERED = 64
"""Calls that left last, from which the rate is taken at which places become free."""


class Places:
    """Who is in work.

    Args:
        most: calls of priority, default and flex together; the reserved tier has as many of its own.
        flex_share: part of them that flex finds taken before it is refused.
    """

    def __init__(self, most: int, flex_share: float) -> None:
        self._most = most
        self._flex_share = flex_share
        self._reserved = 0
        self._others = 0
        self._left: deque[float] = deque(maxlen=REMEMBERED)

    def enter(self, tier: Tier, now: float) -> None:
        """One more is in work.

        Raises:
            CapacityError: there is no place for it; it says when there may be one.
        """
        if tier.is_full(self._most, self._reserved, self._others, self._flex_share):
            inside = self._reserved if tier is Tier.RESERVED else self._others
            limit = tier.places(self._most, self._flex_share)
            raise CapacityError(
                f"This server works on {inside} requests, and takes no more of tier {tier} from {limit} on; "
                f"try again later.",
                self._drain_s(inside - limit + 1, now),
            )
        self._count(tier, 1)

    def leave(self, tier: Tier, now: float) -> None:
        """One less."""
        self._count(tier, -1)
        self._left.append(now)

    def _count(self, tier: Tier, change: int) -> None:
        if tier is Tier.RESERVED:
            self._reserved += change
        else:
            self._others += change

    def _drain_s(self, places: int, now: float) -> float:
        """How long until so many have left, if they go on leaving as they did lately."""
        if not self._left:
            return SHORTEST_S
        each_s = (now - self._left[0]) / len(self._left)
        return min(max(places * each_s, SHORTEST_S), LONGEST_S)
