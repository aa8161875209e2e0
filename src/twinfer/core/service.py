"""How urgently a request is served, and on which pool."""

from enum import StrEnum


class Tier(StrEnum):
    """A service tier."""

    PRIORITY = "priority"
    """Before all others that share what is there."""
    RESERVED = "reserved"
    """Before priority, but no more of it than the tenant's own share: so it has that share, whatever others ask."""
    DEFAULT = "default"
    FLEX = "flex"
    """After all others; gives way first."""

    @property
    def rank(self) -> int:
        """Lower ones come first."""
        return _RANKS[self]

    @property
    def is_urgent(self) -> bool:
        """Whether flex gives up what it holds for it."""
        return self.rank <= _RANKS[Tier.PRIORITY]

    @property
    def gives_way(self) -> bool:
        """Whether it gives up what it holds for an urgent one."""
        return self is Tier.FLEX

    def places(self, most: int, flex_share: float = 0.5) -> int:
        """From how many on one more of this tier has no place.

        Args:
            most: places that priority, default and flex share; the reserved tier has as many of its own.
            flex_share: part of them that flex finds taken before it is refused; it always has one.
        """
        return max(1, int(most * flex_share)) if self is Tier.FLEX else most

    def is_full(self, most: int, reserved: int, others: int, flex_share: float = 0.5) -> bool:
        """Whether one more of this tier has no place, with so many of the reserved tier there, and so many others."""
        return (reserved if self is Tier.RESERVED else others) >= self.places(most, flex_share)


class Latency(StrEnum):
    """A latency mode."""

    STANDARD = "standard"
    OPTIMIZED = "optimized"
    """On the pool for low latency, where there is one."""


_RANKS = {Tier.RESERVED: 0, Tier.PRIORITY: 1, Tier.DEFAULT: 2, Tier.FLEX: 3}
NUM_RANKS = len(_RANKS)
