"""How urgently a request is served, and on which pool."""

from enum import StrEnum


class Tier(StrEnum):
    """A service tier."""

    PRIORITY = "priority"
    """Before all others."""
    RESERVED = "reserved"
    """As priority, out of a share of the tenant's own."""
    DEFAULT = "default"
    FLEX = "flex"
    """After all others; gives way first."""

    @property
    def rank(self) -> int:
        """Lower ones come first."""
        return _RANKS[self]


class Latency(StrEnum):
    """A latency mode."""

    STANDARD = "standard"
    OPTIMIZED = "optimized"
    """On the pool for low latency, where there is one."""


_RANKS = {Tier.PRIORITY: 0, Tier.RESERVED: 0, Tier.DEFAULT: 1, Tier.FLEX: 2}
NUM_RANKS = 3
