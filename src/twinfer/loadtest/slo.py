"""Service level objectives, what share of the requests kept them, and the rate at which most still do."""

from dataclasses import dataclass, field

import msgspec

from twinfer.core.errors import ConfigError
from twinfer.loadtest.record import Record


class Objectives(msgspec.Struct, frozen=True):
    """What a good request keeps; ``None`` asks for nothing.

    Args:
        ttft_s: to the first text, at most.
        tpot_s: per token after the first, at most.
        e2e_s: to the end, at most.
        attainment: share of the requests that has to be good for a rate to hold.
    """

    ttft_s: float | None = None
    tpot_s: float | None = None
    e2e_s: float | None = None
    attainment: float = 0.9

    @property
    def any(self) -> bool:
        """Whether anything is asked for."""
        return any(limit is not None for limit in (self.ttft_s, self.tpot_s, self.e2e_s))

    def kept(self, record: Record) -> bool:
        """Whether a request is good; one that failed never is."""
        if record.error is not None:
            return False
        found = ((record.ttft_s, self.ttft_s), (record.tpot_s, self.tpot_s), (record.e2e_s, self.e2e_s))
        return all(limit is None or value is None or value <= limit for value, limit in found)


@dataclass(slots=True)
class RateSearch:
    """The highest rate that holds: doubled until one fails, halved until one holds, then narrowed in between.

    Attributes:
        start: the first rate to try, in requests per second.
        resolution: it ends when the rate that holds and the one that does not are this close, relatively.
        max_trials: and after so many trials anyway.
        tried: (rate, held), in order.
    """

    start: float
    resolution: float = 0.05
    max_trials: int = 12
    tried: list[tuple[float, bool]] = field(default_factory=list)

    def __post_init__(self) -> None:
        if not 0 < self.start < 1e6 or not 0 < self.resolution < 1:
            raise ConfigError("--find-rate begins at --rate, which has to be above 0")

    @property
    def best(self) -> float | None:
        """The highest rate that held, below all that did not; ``None`` so far."""
        failed = min((rate for rate, held in self.tried if not held), default=float("inf"))
        return max((rate for rate, held in self.tried if held and rate < failed), default=None)

    def next_rate(self) -> float | None:
        """What to try next; ``None``: it is found, or it is not worth more."""
        if not self.tried:
            return self.start
        failed = min((rate for rate, held in self.tried if not held), default=None)
        held = self.best
        if len(self.tried) >= self.max_trials:
            return None
        if failed is None:
            return max(rate for rate, _ in self.tried) * 2
        if held is None:
            return failed / 2
        return None if failed / held - 1 <= self.resolution else (failed * held) ** 0.5

    def tell(self, rate: float, *, held: bool) -> None:
        """What came of a trial."""
        self.tried.append((rate, held))
