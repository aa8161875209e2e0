"""The ``twinfer`` object of every answer: which way it went, and where its time did."""

from typing import Any

from twinfer.core.cost import Estimate
from twinfer.gateway.base import Journey


def journey_fields(journey: Journey) -> dict[str, Any]:
    """Route, milliseconds, tokens and bytes; unknown fields to every client, and ignored by all of them."""
    fields: dict[str, Any] = {
        "route": journey.route.kind.value,
        "reason": journey.route.reason,
        "prefill_worker": journey.route.prefill,
        "decode_worker": journey.route.decode,
        "queue_ms": round(journey.queue_ms, 3),
        "reserve_ms": round(journey.reserve_ms, 3),
        "fetch_ms": round(journey.fetch_ms, 3),
        "prefill_ms": round(journey.prefill_ms, 3),
        "exposed_transfer_ms": round(journey.exposed_transfer_ms, 3),
        "decode_ms": round(journey.decode_ms, 3),
        "cached_tokens": journey.cached_tokens,
        "transfer_bytes": journey.transfer_bytes,
    }
    if journey.route.estimate is not None:
        fields["predicted"] = _prediction(journey.route.estimate)
    if journey.route.instead is not None:
        fields["instead"] = _prediction(journey.route.instead)
    return fields


def _prediction(estimate: Estimate) -> dict[str, Any]:
    """What was expected of a choice of workers; its cost in late requests."""
    return {
        "prefill_worker": estimate.prefill,
        "decode_worker": estimate.decode,
        "ttft_ms": round(estimate.ttft_s * 1e3, 3),
        "tpot_ms": round(estimate.tpot_s * 1e3, 3),
        "cost": round(estimate.cost, 4),
        "holds": estimate.holds,
    }
