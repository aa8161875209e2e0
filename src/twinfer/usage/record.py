"""One request's line in the ledger."""

from enum import StrEnum

import msgspec


class Status(StrEnum):
    """How a request ended."""

    ANSWERED = "answered"
    CANCELLED = "cancelled"
    """Its client left before the end."""
    FAILED = "failed"
    """An error took the answer's place, or cut it off."""


class Tokens(msgspec.Struct, frozen=True):
    """What one request is told that it used; the ledger, the quotas and every API's ``usage`` are made of these.

    Args:
        input: prompt tokens that were neither found in a cache nor written to one for the client.
        cache_read: prompt tokens found in a prefix cache.
        cache_write: prompt tokens that were computed and pinned at the client's cache points.
        output: generated tokens that were wanted.
    """

    input: int = 0
    cache_read: int = 0
    cache_write: int = 0
    output: int = 0

    @property
    def prompt(self) -> int:
        """All of the prompt."""
        return self.input + self.cache_read + self.cache_write

    @property
    def charged(self) -> int:
        """What counts against a quota: cache reads are free."""
        return self.input + self.cache_write + self.output

    def __add__(self, other: "Tokens") -> "Tokens":
        return Tokens(
            self.input + other.input,
            self.cache_read + other.cache_read,
            self.cache_write + other.cache_write,
            self.output + other.output,
        )


class UsageRecord(msgspec.Struct, frozen=True):
    """A request that reached the workers, once, however often it was planned anew.

    Args:
        request_id: as the client sees it in the response's headers.
        at_ms: when it came, in Unix milliseconds.
        key_id: the access key; empty for anybody.
        profile: the application inference profile that it named; empty for none.
        tier, latency: as served.
        route: ``aggregated``, ``disaggregated``; empty where no worker was chosen.
        prefill_s, decode_s: computing its prompts and its tokens.
        kv_byte_s: bytes of KV that workers held for it, times how long.
        bytes_moved: KV bytes that went from worker to worker.
        recoveries: plans that were made anew because a worker failed.
        cost_nano: in 10^-9 of the price file's currency; ``None`` without a price.
    """

    request_id: str
    at_ms: int
    tenant: str
    key_id: str
    model: str
    profile: str
    operation: str
    status: Status
    tier: str
    latency: str
    route: str
    tokens: Tokens
    prefill_s: float = 0.0
    decode_s: float = 0.0
    kv_byte_s: float = 0.0
    bytes_moved: int = 0
    recoveries: int = 0
    cost_nano: int | None = None
