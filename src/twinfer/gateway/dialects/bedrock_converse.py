"""Bedrock's Converse and ConverseStream: one conversation in, one assistant message out."""

import secrets
import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
from starlette.responses import Response

from twinfer.core.errors import TwinferError
from twinfer.gateway.answers import Answer, Ending, Piece, join_text
from twinfer.gateway.dialects import event_stream
from twinfer.gateway.dialects.converse_request import Converse, read_converse
from twinfer.gateway.dialects.journey import journey_fields
from twinfer.gateway.errors import bedrock_stream_exception
from twinfer.gateway.exchange import Call, Context, Plain, Streamed
from twinfer.gateway.prepare import Asked, prepare

_STOP_REASONS = {
    Ending.END_OF_TURN: "end_turn",
    Ending.MAX_TOKENS: "max_tokens",
    Ending.STOP_STRING: "stop_sequence",
    Ending.CONTEXT_FULL: "model_context_window_exceeded",
    Ending.TOOL_CALLS: "tool_use",
    Ending.BROKEN_CALL: "malformed_tool_use",
}
_PADDING = string.ascii_letters + string.digits[:9]


async def converse(call: Call, context: Context) -> Plain:
    """Converse: the whole message in one body."""
    asked = read_converse(call.body)
    work = await prepare(call, context, Asked(call.model, asked.conversation, asked.options))
    return Plain(work, lambda answers, latency_ms: _body(asked, answers[0], latency_ms))


async def converse_stream(call: Call, context: Context) -> Streamed:
    """ConverseStream: the message as events, in parts as they are generated."""
    asked = read_converse(call.body)
    work = await prepare(call, context, Asked(call.model, asked.conversation, asked.options))
    return Streamed(work, ConverseRendering(asked, padded=call.secure))


def _body(asked: Converse, answer: Answer, latency_ms: int) -> Response:
    message = {"role": "assistant", "content": [{"text": answer.text}]}
    body = {"output": {"message": message}, **_stop(asked, answer), **_accounts(asked, answer, latency_ms)}
    return Response(msgspec.json.encode(body), media_type="application/json")


def _stop(asked: Converse, answer: Answer) -> dict[str, Any]:
    """Why it stopped, and those of the native fields the client asked for that exist."""
    assert answer.ending is not None
    stop: dict[str, Any] = {"stopReason": _STOP_REASONS[answer.ending]}
    if "/stop_sequence" in asked.response_fields and answer.stop_string is not None:
        stop["additionalModelResponseFields"] = {"stop_sequence": answer.stop_string}
    return stop


def _accounts(asked: Converse, answer: Answer, latency_ms: int) -> dict[str, Any]:
    """Usage, time, the service as it was given, and the journey. Cached prompt tokens are not input tokens."""
    prompt, cached = len(answer.request.prompt), answer.num_cached
    accounts: dict[str, Any] = {
        "usage": {
            "inputTokens": prompt - cached,
            "outputTokens": answer.num_tokens,
            "totalTokens": prompt + answer.num_tokens,
            "cacheReadInputTokens": cached,
            "cacheWriteInputTokens": 0,
        },
        "metrics": {"latencyMs": latency_ms},
    }
    if asked.names_latency:
        accounts["performanceConfig"] = {"latency": "standard"}
    if asked.names_tier:
        accounts["serviceTier"] = {"type": "default"}
    return accounts | {"twinfer": journey_fields(answer.journey())}


@dataclass(frozen=True, slots=True)
class ConverseRendering:
    """One answer as ConverseStream's events: messageStart, deltas, contentBlockStop, messageStop, metadata.

    A text block has no contentBlockStart: clients break on one.

    Attributes:
        padded: whether every event carries a random field that hides its length from who watches encrypted traffic.
    """

    asked: Converse
    padded: bool = False
    content_type: str = event_stream.CONTENT_TYPE

    def begin(self) -> bytes:
        """Who speaks."""
        return self._event("messageStart", {"role": "assistant"})

    def pieces(self, pieces: Sequence[Piece]) -> bytes:
        """New text, if there is any."""
        text = join_text(pieces)
        return self._delta(text) if text else b""

    def end(self, answers: Sequence[Answer], latency_ms: int) -> bytes:
        """The block's end, why it stopped, and the accounts."""
        answer = answers[0]
        return (
            (b"" if answer.text else self._delta(""))
            + self._event("contentBlockStop", {"contentBlockIndex": 0})
            + self._event("messageStop", _stop(self.asked, answer))
            + self._event("metadata", _accounts(self.asked, answer, latency_ms))
        )

    def failure(self, error: TwinferError) -> bytes:
        """An exception frame."""
        payload = msgspec.json.encode({"message": str(error)})
        return event_stream.encode_exception(bedrock_stream_exception(error), payload)

    def _delta(self, text: str) -> bytes:
        return self._event("contentBlockDelta", {"contentBlockIndex": 0, "delta": {"text": text}})

    def _event(self, event_type: str, payload: Mapping[str, Any]) -> bytes:
        if self.padded:
            payload = {"p": _PADDING[: 2 + secrets.randbelow(len(_PADDING) - 1)], **payload}
        return event_stream.encode_event(event_type, msgspec.json.encode(payload))
