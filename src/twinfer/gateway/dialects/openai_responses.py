"""OpenAI's Responses: one answer, as items or as events. Nothing is stored, so nothing can be fetched again."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
from starlette.responses import Response

from twinfer.core.errors import TwinferError
from twinfer.gateway.answers import Answer, Piece
from twinfer.gateway.dialects import sse
from twinfer.gateway.dialects.chat_request import tier_served
from twinfer.gateway.dialects.journey import journey_fields
from twinfer.gateway.dialects.responses_items import INCOMPLETE, Event, ItemEvents, items
from twinfer.gateway.dialects.responses_request import Ask, read_ask
from twinfer.gateway.errors import UnknownResource, openai_error_body
from twinfer.gateway.exchange import Call, Context, Plain, Streamed
from twinfer.gateway.prepare import Asked, prepare


async def responses(call: Call, context: Context) -> Plain | Streamed:
    """Create a response, streamed if the body says so."""
    ask = await call.read(read_ask)
    work = await prepare(call, context, Asked(ask.model, ask.conversation, ask.options, whole_calls=not ask.stream))
    head = ResponseHead(call.request_id, int(time.time()), work.model.id, ask, tier_served(work.requests[0]))
    return Streamed(work, ResponseRendering(head)) if ask.stream else Plain(work, head.render)


async def stored_response(call: Call, context: Context) -> Response:
    """There is none: whoever needs an answer later keeps it.

    Raises:
        UnknownResource: always.
    """
    raise UnknownResource(f"No response {call.model[:100]} is stored; this server keeps none.", where="response_id")


@dataclass(frozen=True, slots=True)
class ResponseHead:
    """What stays the same from the first event to the last."""

    request_id: str
    created: int
    model: str
    ask: Ask
    tier: str

    @property
    def stem(self) -> str:
        """Tells this response's items from others'."""
        return f"{self.request_id.replace('-', '')}_"

    def body(self, status: str, **members: Any) -> dict[str, Any]:
        """The response as it is now."""
        return {
            "id": f"resp_{self.request_id.replace('-', '')}",
            "object": "response",
            "created_at": self.created,
            "status": status,
            "error": None,
            "incomplete_details": None,
            "model": self.model,
            "output": [],
            "service_tier": self.tier,
            "usage": None,
            **self.ask.echoed,
            **members,
        }

    def complete(self, answer: Answer) -> dict[str, Any]:
        """The response in the end."""
        assert answer.ending is not None
        reason = INCOMPLETE.get(answer.ending)
        return self.body(
            "completed" if reason is None else "incomplete",
            incomplete_details=None if reason is None else {"reason": reason},
            output=items(answer, self.stem),
            usage=_usage(answer),
            twinfer=journey_fields(answer.journey()),
        )

    def render(self, answers: Sequence[Answer], latency_ms: int) -> Response:
        """It in one body."""
        return Response(msgspec.json.encode(self.complete(answers[0])), media_type="application/json")


class ResponseRendering:
    """A response as events, numbered through; there is no other mark of its end than the last of them."""

    content_type = sse.CONTENT_TYPE
    keep_alive = sse.KEEP_ALIVE

    def __init__(self, head: ResponseHead) -> None:
        self._head = head
        self._items = ItemEvents(head.stem)
        self._number = 0

    def begin(self) -> bytes:
        """It exists, and is worked on."""
        body = self._head.body("in_progress")
        return self._encode([{"type": f"response.{state}", "response": body} for state in ("created", "in_progress")])

    def pieces(self, pieces: Sequence[Piece]) -> bytes:
        """More of its items."""
        return self._encode([event for piece in pieces for event in self._items.feed(piece.deltas)])

    def end(self, answers: Sequence[Answer], latency_ms: int) -> bytes:
        """The last item's end, and the whole response."""
        body = self._head.complete(answers[0])
        status = body["status"]
        return self._encode([*self._items.finish(status), {"type": f"response.{status}", "response": body}])

    def failure(self, error: TwinferError) -> bytes:
        """It failed, and why."""
        said = openai_error_body(error)["error"]
        told = {"code": "server_error", "message": said["message"]}
        return self._encode([{"type": "response.failed", "response": self._head.body("failed", error=told)}])

    def _encode(self, events: Sequence[Event]) -> bytes:
        encoded = []
        for event in events:
            numbered = {**event, "sequence_number": self._number}
            encoded.append(f"event: {event['type']}\n".encode() + sse.encode_event(numbered))
            self._number += 1
        return b"".join(encoded)


def _usage(answer: Answer) -> dict[str, Any]:
    prompt = len(answer.request.prompt)
    return {
        "input_tokens": prompt,
        "input_tokens_details": {
            "cached_tokens": answer.num_cached,
            "cache_write_tokens": answer.tokens_used.cache_write,
        },
        "output_tokens": answer.num_tokens,
        "output_tokens_details": {"reasoning_tokens": answer.num_reasoning_tokens},
        "total_tokens": prompt + answer.num_tokens,
    }
