"""The seam between the dialects, which speak to clients, and the dispatcher, which drives workers."""

from typing import Protocol

import msgspec

from twinfer.core.ids import ModelId
from twinfer.core.request import GenerationRequest
from twinfer.core.route import Route, RouteKind
from twinfer.gateway.arrivals import Arrivals


class Journey(msgspec.Struct, frozen=True):
    """What became of a request: its path and where its time went. Times in milliseconds.

    queue + reserve + fetch + prefill = time to first token inside the gateway, up to network time; exposed transfer
    plus one decode step is the gap to the second token.

    Attributes:
        kv_byte_s: KV bytes that workers held for it, times how long, as far as they have told.
        recoveries: plans that were made anew because a worker failed.
        pinned_tokens: of the prompt, kept for its cache points by the worker that computed it.
    """

    route: Route
    queue_ms: float
    reserve_ms: float
    fetch_ms: float
    prefill_ms: float
    exposed_transfer_ms: float
    decode_ms: float
    cached_tokens: int
    transfer_bytes: int
    kv_byte_s: float = 0.0
    recoveries: int = 0
    pinned_tokens: int = 0


class Generation(Protocol):
    """One request in work. Read its arrivals to the end, or close it: closing cancels on every worker."""

    @property
    def arrivals(self) -> Arrivals:
        """Its tokens. An error there says what a client may do about it."""
        ...

    @property
    def route(self) -> Route:
        """The path taken, known once the first tokens arrived."""
        ...

    def close(self) -> None:
        """Stop at once and free what the workers hold for it. Safe to call again, and after the end."""
        ...

    def journey(self) -> Journey:
        """What became of it so far; complete after the last token."""
        ...


class Dispatcher(Protocol):
    """Runs requests on the cluster."""

    def start(self, request: GenerationRequest, forced: RouteKind | None) -> Generation:
        """Begin. ``forced`` overrides the router's choice of mode where the operator allows it."""
        ...

    def optimizes(self, model: ModelId) -> bool:
        """Whether a pool for low latency serves this model now."""
        ...

    def foresee(self, request: GenerationRequest, forced: RouteKind | None) -> float | None:
        """Seconds in which the first token is to be expected; ``None`` where that cannot be told."""
        ...

    def unready(self) -> str | None:
        """Why no request can be served now, in words; ``None`` when all is well."""
        ...

    async def metrics(self) -> str:
        """Prometheus text of the workers' series, labelled with worker, role and model."""
        ...
