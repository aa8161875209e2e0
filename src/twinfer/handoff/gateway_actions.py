"""What a request's machine on its gateway asks its shell to do, and what the shell tells it of a plan."""

from dataclasses import dataclass
from typing import TypeAlias

from twinfer.core.capabilities import Capabilities, Fingerprint
from twinfer.core.errors import TwinferError
from twinfer.core.ids import Epoch, HandoffId, RequestId, WorkerId
from twinfer.core.messages import ToWorker
from twinfer.core.route import Route
from twinfer.core.tokens import Token


@dataclass(frozen=True, slots=True)
class Send:
    """Send to a worker."""

    worker: WorkerId
    message: ToWorker


@dataclass(frozen=True, slots=True)
class Emit:
    """Release tokens to the client."""

    tokens: tuple[Token, ...]


@dataclass(frozen=True, slots=True)
class End:
    """The one terminal outcome: an error, or ``None`` after the last token."""

    error: TwinferError | None


@dataclass(frozen=True, slots=True)
class Passing:
    """What a disaggregated attempt needs besides its route: a fresh handoff id, and what the source said of itself."""

    handoff: HandoffId
    source: WorkerId
    source_epoch: Epoch
    capabilities: Capabilities


@dataclass(frozen=True, slots=True)
class Fetching:
    """How the prefill worker may get a prefix that the decode worker has cached, before it computes the rest.

    Attributes:
        passing: a fresh handoff id, and what the decode worker, here the source, said of itself.
        min_tokens: it pays when the decode worker has at least that many tokens more, 1 or more.
        cached_tokens: that the prefill worker is known to have; it may have more.
    """

    passing: Passing
    min_tokens: int
    cached_tokens: int = 0

    def pays(self, num_tokens: int) -> bool:
        """Whether that may be so when the decode worker has that many."""
        return num_tokens - self.cached_tokens >= self.min_tokens


@dataclass(frozen=True, slots=True)
class Plan:
    """One attempt. ``passing`` is there exactly when the route is disaggregated, and then ``fetching`` may be.

    Attributes:
        weights: whose answer it will be: what the decode worker's KV and tokens mean.
    """

    route: Route
    passing: Passing | None = None
    fetching: Fetching | None = None
    weights: Fingerprint | None = None


@dataclass(frozen=True, slots=True)
class Replan:
    """Ask the router for another route, without these workers, after a pause.

    Attributes:
        reason: why, in one word, for the metrics.
        keep: KV that its source still holds; a plan with the same ``passing`` and another decode worker uses it.
    """

    exclude: frozenset[WorkerId]
    pause_s: float
    reason: str
    keep: Passing | None = None


@dataclass(frozen=True, slots=True)
class Mismatch:
    """These two cannot pass KV, this way round: remember it, before the request is planned again."""

    source: WorkerId
    sink: WorkerId


@dataclass(frozen=True, slots=True)
class FetchBegan:
    """Report it as overdue after so many seconds, if it has not ended by then."""

    fetch: RequestId
    within_s: float


@dataclass(frozen=True, slots=True)
class FetchEnded:
    """How, in one word, for the metrics."""

    outcome: str


GatewayAction: TypeAlias = Send | Emit | Replan | Mismatch | FetchBegan | FetchEnded | End
