"""What comes out of an engine: tokens in index order, and one terminal record per request."""

from enum import StrEnum

import msgspec

from twinfer.core.ids import RequestId


class FinishReason(StrEnum):
    """Why an engine stopped generating."""

    STOP = "stop"
    """A stop token id was drawn; it is the last token and not part of the text."""
    LENGTH = "length"
    """``max_tokens`` were generated."""
    CONTEXT = "context"
    """The model's context is full."""


class Logprob(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A token and its natural log probability, before temperature and truncation."""

    token_id: int
    logprob: float


class Token(msgspec.Struct, frozen=True, array_like=True, omit_defaults=True, gc=False):
    """One output token; the collector need not look at so many.

    Args:
        request_id: whose it is.
        index: position in the output, from 0.
        token_id: the token.
        logprob: its log probability, when asked for.
        top: the most likely alternatives, best first, when asked for.
        finish: set on the last token.
    """

    request_id: RequestId
    index: int
    token_id: int
    logprob: float | None = None
    top: tuple[Logprob, ...] = ()
    finish: FinishReason | None = None


class Timings(msgspec.Struct, frozen=True, omit_defaults=True):
    """Where one worker spent its time on one request, in seconds on that worker's clock.

    Args:
        queue_s: from arrival to the first step that computed something of it.
        prefill_s: from there to its first sampled token.
        decode_s: from its first token on this worker to its last.
        transfer_s: on a decode worker, from the seal's arrival to commit.
        cached_tokens: prompt tokens found in the worker's prefix cache.
        pinned_tokens: prompt tokens that the request's pins keep in that cache, whether they were there or not.
        transfer_bytes: KV bytes received.
        kv_block_s: KV blocks that it held for the request, times how long, up to its last token on this worker.
    """

    queue_s: float = 0.0
    prefill_s: float = 0.0
    decode_s: float = 0.0
    transfer_s: float = 0.0
    cached_tokens: int = 0
    transfer_bytes: int = 0
    kv_block_s: float = 0.0
    pinned_tokens: int = 0
