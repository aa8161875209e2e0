"""Records as gateways make them."""

from typing import Any

import msgspec

from twinfer.usage.record import Status, Tokens, UsageRecord

NOON_MS = 1_767_268_800_000
"""2026-01-01, 12:00 UTC."""


def a_record(number: int = 0, **changes: Any) -> UsageRecord:
    """Some request's."""
    record = UsageRecord(
        request_id=f"request-{number}",
        at_ms=NOON_MS + number,
        tenant="acme",
        key_id="AKIDEXAMPLE",
        model="a.model-v1:0",
        profile="",
        operation="Converse",
        status=Status.ANSWERED,
        tier="default",
        latency="standard",
        route="disaggregated",
        tokens=Tokens(10, 3, 2, 5),
        prefill_s=0.5,
        decode_s=0.25,
        kv_byte_s=2.0**30,
        bytes_moved=5_000_000_000,
        recoveries=1,
        cost_nano=7,
    )
    return msgspec.structs.replace(record, **changes)
