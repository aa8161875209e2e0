"""Bedrock's InvokeModel and InvokeModelWithResponseStream: bodies of a model's own family, and headers around them."""

import base64
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import msgspec
from starlette.responses import Response

from twinfer.core.errors import InvalidRequest, TwinferError
from twinfer.core.service import Latency, Tier
from twinfer.gateway.answers import Answer, Piece
from twinfer.gateway.dialects import event_stream
from twinfer.gateway.dialects.converse_request import LATENCIES, TIERS, check_metadata
from twinfer.gateway.dialects.native import Addressed, Chunk, NativeRequest, NativeStream
from twinfer.gateway.dialects.native_families import choose_family
from twinfer.gateway.dialects.reader import Reader, read_json
from twinfer.gateway.errors import ConstraintViolation, bedrock_stream_exception
from twinfer.gateway.exchange import Call, Context, Plain, Streamed, Work
from twinfer.gateway.prepare import Asked, prepare
from twinfer.usage.record import Tokens

_JSON = "application/json"
_PREFIX = "x-amzn-bedrock-"
_ACCEPTED = (_JSON, "application/*", "*/*")
_MAX_METADATA = 8500


async def invoke_model(call: Call, context: Context) -> Plain:
    """InvokeModel: one body in, one body out, and the counts in headers."""
    wanted = _read_headers(call, accept="accept")
    native = await call.read(partial(read_native, addressed=_addressed(call, streamed=False)))
    work = await prepare(call, context, wanted.asked(native))
    served = wanted.served(work)

    def render(answers: Sequence[Answer], latency_ms: int) -> Response:
        headers = {**served, **_counts(answers, latency_ms)}
        return Response(msgspec.json.encode(native.body(answers)), headers=headers, media_type=_JSON)

    return Plain(work, render)


async def invoke_model_with_response_stream(call: Call, context: Context) -> Streamed:
    """InvokeModelWithResponseStream: the same in chunks, the counts in the last one."""
    wanted = _read_headers(call, accept=f"{_PREFIX}accept")
    native = await call.read(partial(read_native, addressed=_addressed(call, streamed=True)))
    work = await prepare(call, context, wanted.asked(native))
    stream = native.stream(len(work.requests[0].prompt))
    rendering = InvokeRendering(
        stream, lambda: context.clock.now() - call.arrived_s, padded=call.secure and context.config.gateway.pad_events
    )
    return Streamed(work, rendering, {**wanted.served(work), f"{_PREFIX}content-type": _JSON})


def read_native(body: bytes, addressed: Addressed) -> NativeRequest:
    """Read a body in the form of its model's family.

    Raises:
        InvalidRequest: it is malformed, contradicts itself, or needs what this server does not do.
    """
    fields = read_json(body)
    try:
        return choose_family(addressed.model, fields)(fields, addressed)
    except ConstraintViolation as error:
        raise InvalidRequest(
            f"Malformed input request: {error}, please reformat your input and try again.", error.where
        ) from error


def _addressed(call: Call, streamed: bool) -> Addressed:
    return Addressed(call.model, call.request_id, int(time.time()), streamed)


@dataclass(frozen=True, slots=True)
class _Wanted:
    """The service that headers ask for; what is ``None`` was not said, and is not told."""

    tier: Tier | None
    latency: Latency | None

    def asked(self, native: NativeRequest) -> Asked:
        """What a body asks for, to be served so; what it says itself comes first."""
        options = native.asked.options
        tier, latency = options.tier or self.tier, options.latency or self.latency
        return msgspec.structs.replace(
            native.asked, options=msgspec.structs.replace(options, tier=tier, latency=latency)
        )

    def served(self, work: Work) -> dict[str, str]:
        """The response's headers that say how it is served, where the client chose."""
        request = work.requests[0]
        told = (("service-tier", self.tier, request.tier), ("performanceconfig-latency", self.latency, request.latency))
        return {_PREFIX + name: given.value for name, chosen, given in told if chosen is not None}


def _read_headers(call: Call, accept: str) -> _Wanted:
    """Check those of the request.

    Raises:
        InvalidRequest: the client wants something that is not served.
    """
    content_type = call.headers.get("content-type", _JSON)
    if content_type.partition(";")[0].strip().lower() not in _ACCEPTED:
        raise InvalidRequest(f"The content type {content_type[:100]} is not supported; send application/json.")
    wanted = [kind.partition(";")[0].strip().lower() for kind in call.headers.get(accept, _JSON).split(",")]
    if not any(kind in (*_ACCEPTED, "") for kind in wanted):
        raise InvalidRequest(f"The accept type {', '.join(wanted)[:100]} is not supported; accept application/json.")
    if call.headers.get(f"{_PREFIX}guardrailidentifier"):
        raise InvalidRequest("The guardrail identifier or version provided in the request does not exist.")
    if (metadata := call.headers.get(f"{_PREFIX}request-metadata")) is not None:
        name = "X-Amzn-Bedrock-Request-Metadata"
        Reader(metadata, name).string(at_most=_MAX_METADATA)
        check_metadata(Reader(read_json(metadata.encode()).mapping(), name))
    tier, latency, _ = (
        None
        if (word := call.headers.get(_PREFIX + name)) is None
        else Reader(word, f"X-Amzn-Bedrock-{name}").one_of(words)
        for name, words in (
            ("service-tier", TIERS),
            ("performanceconfig-latency", LATENCIES),
            ("trace", ("ENABLED", "DISABLED", "ENABLED_FULL")),
        )
    )
    return _Wanted(Tier(tier) if tier else None, Latency(latency) if latency else None)


def _counts(answers: Sequence[Answer], latency_ms: int) -> Mapping[str, str]:
    """The header that tells each count. Cached prompt tokens are not input tokens."""
    tokens = _tokens(answers)
    return {
        f"{_PREFIX}invocation-latency": str(latency_ms),
        f"{_PREFIX}input-token-count": str(tokens.input),
        f"{_PREFIX}output-token-count": str(tokens.output),
        f"{_PREFIX}cache-read-input-token-count": str(tokens.cache_read),
        f"{_PREFIX}cache-write-input-token-count": str(tokens.cache_write),
    }


def _tokens(answers: Sequence[Answer]) -> Tokens:
    """Of all choices together; they share one prompt."""
    return sum((Tokens(output=answer.num_tokens) for answer in answers[1:]), answers[0].tokens_used)


class InvokeRendering:
    """Native chunks as events. The last one carries the counts.

    Args:
        elapsed_s: since the call arrived.
        padded: whether every event carries a random field that hides its length from who watches encrypted traffic.
    """

    content_type = event_stream.CONTENT_TYPE
    keep_alive = b""

    def __init__(self, stream: NativeStream, elapsed_s: Callable[[], float], padded: bool) -> None:
        self._stream = stream
        self._elapsed_s = elapsed_s
        self._padded = padded
        self._first_byte_ms: int | None = None

    def begin(self) -> bytes:
        """What the family says before anything is generated."""
        return self._encode(self._stream.begin())

    def pieces(self, pieces: Sequence[Piece]) -> bytes:
        """New content, if there is any."""
        if pieces and self._first_byte_ms is None:
            self._first_byte_ms = int(self._elapsed_s() * 1000)
        return self._encode(self._stream.pieces(pieces))

    def end(self, answers: Sequence[Answer], latency_ms: int) -> bytes:
        """The family's last words, and the counts with the very last."""
        tokens = _tokens(answers)
        metrics = {
            "inputTokenCount": tokens.input,
            "outputTokenCount": tokens.output,
            "invocationLatency": latency_ms,
            "firstByteLatency": latency_ms if self._first_byte_ms is None else min(self._first_byte_ms, latency_ms),
            "cacheReadInputTokenCount": tokens.cache_read,
            "cacheWriteInputTokenCount": tokens.cache_write,
        }
        *chunks, last = self._stream.end(answers, latency_ms)
        return self._encode([*chunks, {**last, "amazon-bedrock-invocationMetrics": metrics}])

    def failure(self, error: TwinferError) -> bytes:
        """An exception frame."""
        name, body = bedrock_stream_exception(error, models_timeout=True)
        return event_stream.encode_exception(name, msgspec.json.encode(body))

    def _encode(self, chunks: Sequence[Chunk]) -> bytes:
        return b"".join(self._frame(chunk) for chunk in chunks)

    def _frame(self, chunk: Mapping[str, Any]) -> bytes:
        data = base64.b64encode(msgspec.json.encode(chunk)).decode()
        return event_stream.encode_json("chunk", {"bytes": data}, self._padded)
