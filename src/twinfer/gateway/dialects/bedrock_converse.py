"""Bedrock's Converse and ConverseStream: one conversation in, one assistant message out."""

from collections.abc import Sequence
from typing import Any

import msgspec
from starlette.responses import Response

from twinfer.core.errors import TwinferError
from twinfer.gateway.answers import Answer, Piece
from twinfer.gateway.dialects import event_stream
from twinfer.gateway.dialects.converse_answer import CALL_PREFIX, ContentEvents, Event, message, stop_reason, usage
from twinfer.gateway.dialects.converse_request import Converse, read_converse
from twinfer.gateway.dialects.event_stream import encode_json
from twinfer.gateway.dialects.journey import journey_fields
from twinfer.gateway.errors import bedrock_stream_exception
from twinfer.gateway.exchange import Call, Context, Plain, Streamed
from twinfer.gateway.prepare import Asked, prepare


async def converse(call: Call, context: Context) -> Plain:
    """Converse: the whole message in one body."""
    asked = await call.read(read_converse)
    work = await prepare(call, context, Asked(call.model, asked.conversation, asked.options, CALL_PREFIX))
    return Plain(work, lambda answers, latency_ms: _body(asked, answers[0], latency_ms))


async def converse_stream(call: Call, context: Context) -> Streamed:
    """ConverseStream: the message as events, in parts as they are generated, a call's arguments among them."""
    asked = await call.read(read_converse)
    work = await prepare(
        call, context, Asked(call.model, asked.conversation, asked.options, CALL_PREFIX, whole_calls=False)
    )
    return Streamed(work, ConverseRendering(asked, padded=call.secure and context.config.gateway.pad_events))


def _body(asked: Converse, answer: Answer, latency_ms: int) -> Response:
    body = {"output": {"message": message(answer)}, **_stop(asked, answer), **_accounts(asked, answer, latency_ms)}
    return Response(msgspec.json.encode(body), media_type="application/json")


def _stop(asked: Converse, answer: Answer) -> dict[str, Any]:
    """Why it stopped, and those of the native fields the client asked for that exist."""
    stop: dict[str, Any] = {"stopReason": stop_reason(answer)}
    if "/stop_sequence" in asked.response_fields and answer.stop_string is not None:
        stop["additionalModelResponseFields"] = {"stop_sequence": answer.stop_string}
    return stop


def _accounts(asked: Converse, answer: Answer, latency_ms: int) -> dict[str, Any]:
    """Usage, time, the service as it was given, and the journey."""
    accounts: dict[str, Any] = {"usage": usage(answer), "metrics": {"latencyMs": latency_ms}}
    if asked.options.latency is not None:
        accounts["performanceConfig"] = {"latency": answer.request.latency}
    if asked.options.tier is not None:
        accounts["serviceTier"] = {"type": answer.request.tier}
    return accounts | {"twinfer": journey_fields(answer.journey())}


class ConverseRendering:
    """One answer as ConverseStream's events: messageStart, those of its blocks, messageStop, metadata.

    Args:
        padded: whether every event carries a random field that hides its length from who watches encrypted traffic.
    """

    content_type = event_stream.CONTENT_TYPE
    keep_alive = b""

    def __init__(self, asked: Converse, padded: bool = False) -> None:
        self._asked = asked
        self._padded = padded
        self._content = ContentEvents()

    def begin(self) -> bytes:
        """Who speaks."""
        return self._encode([("messageStart", {"role": "assistant"})])

    def pieces(self, pieces: Sequence[Piece]) -> bytes:
        """New content, if there is any."""
        return self._encode(self._content.feed([delta for piece in pieces for delta in piece.deltas]))

    def end(self, answers: Sequence[Answer], latency_ms: int) -> bytes:
        """The last block's end, why it stopped, and the accounts."""
        answer = answers[0]
        return self._encode(
            [
                *self._content.finish(),
                ("messageStop", _stop(self._asked, answer)),
                ("metadata", _accounts(self._asked, answer, latency_ms)),
            ]
        )

    def failure(self, error: TwinferError) -> bytes:
        """An exception frame."""
        name, body = bedrock_stream_exception(error, models_timeout=False)
        return event_stream.encode_exception(name, msgspec.json.encode(body))

    def _encode(self, events: Sequence[Event]) -> bytes:
        return b"".join(encode_json(name, payload, self._padded) for name, payload in events)
