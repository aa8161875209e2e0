"""The ``twinfer`` object of every answer: which way it went, and where its time did."""

from typing import Any

from twinfer.gateway.base import Journey


def journey_fields(journey: Journey) -> dict[str, Any]:
    """Route, milliseconds, tokens and bytes; unknown fields to every client, and ignored by all of them."""
    return {
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
