"""The chosen workers for a request, and why."""

from enum import StrEnum

import msgspec

from twinfer.core.cost import Estimate
from twinfer.core.ids import WorkerId


class RouteKind(StrEnum):
    """Both phases on one worker, or each on its own."""

    AGGREGATED = "aggregated"
    DISAGGREGATED = "disaggregated"


class Route(msgspec.Struct, frozen=True):
    """A decision of the router.

    Args:
        decode: the worker that generates; with an aggregated route it computes the prompt too.
        prefill: the worker that computes the prompt; ``None`` when aggregated.
        reason: one clause for the trace and the metrics.
        estimate: what was predicted of it; ``None`` where nothing was.
        instead: what was predicted of the best choice of the other kind, where there was one.
    """

    decode: WorkerId
    prefill: WorkerId | None
    reason: str
    estimate: Estimate | None = None
    instead: Estimate | None = None

    @property
    def kind(self) -> RouteKind:
        """Which of the two modes this is."""
        return RouteKind.AGGREGATED if self.prefill is None else RouteKind.DISAGGREGATED
