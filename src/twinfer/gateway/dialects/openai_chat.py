"""OpenAI's Chat Completions: n answers to one conversation, whole or as server-sent chunks."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
from starlette.responses import Response

from twinfer.core.errors import TwinferError
from twinfer.core.tokens import Logprob, Token
from twinfer.gateway.answers import Answer, Piece
from twinfer.gateway.dialects import sse
from twinfer.gateway.dialects.chat_answer import ChoiceWriter, finish_reason, message, usage
from twinfer.gateway.dialects.chat_request import Chat, read_chat, tier_served
from twinfer.gateway.dialects.journey import journey_fields
from twinfer.gateway.dialects.logprobs import finite
from twinfer.gateway.errors import openai_error_body
from twinfer.gateway.exchange import Call, Context, Plain, Streamed
from twinfer.gateway.prepare import Asked, prepare
from twinfer.gateway.text.tokenizer import Tokenizer


async def chat_completions(call: Call, context: Context) -> Plain | Streamed:
    """Chat Completions, streamed if the body says so."""
    chat = await call.read(read_chat)
    work = await prepare(call, context, Asked(chat.model, chat.conversation, chat.options, whole_calls=not chat.stream))
    head = ChatHead(
        f"chatcmpl-{call.request_id}",
        int(time.time()),
        work.model.id,
        chat,
        work.model.tokenizer,
        tier_served(work.requests[0]),
    )
    return (
        Streamed(work, ChatRendering(head, [ChoiceWriter() for _ in work.choices]))
        if chat.stream
        else Plain(work, head.render)
    )


@dataclass(frozen=True, slots=True)
class ChatHead:
    """What stays the same from the first chunk of a completion to its last."""

    id: str
    created: int
    model: str
    chat: Chat
    tokenizer: Tokenizer
    tier: str

    def render(self, answers: Sequence[Answer], latency_ms: int) -> Response:
        """The completion in one body; of several choices, the first one's journey is told."""
        body = {
            **self.fields("chat.completion"),
            "choices": [self._choice(answer) for answer in answers],
            "usage": usage(answers),
            "twinfer": journey_fields(answers[0].journey()),
        }
        return Response(msgspec.json.encode(body), media_type="application/json")

    def fields(self, kind: str) -> dict[str, Any]:
        """What every body and chunk begins with."""
        return {
            "id": self.id,
            "object": kind,
            "created": self.created,
            "model": self.model,
            "service_tier": self.tier,
            "system_fingerprint": sse.FINGERPRINT,
        }

    def logprobs(self, tokens: Sequence[Token]) -> dict[str, Any] | None:
        """Log probabilities of tokens, if they were asked for."""
        if self.chat.options.top_logprobs is None:
            return None
        return {"content": [self._logprob(token) for token in tokens], "refusal": None}

    def _choice(self, answer: Answer) -> dict[str, Any]:
        return {
            "index": answer.request.choice,
            "message": message(answer) | {"refusal": None},
            "logprobs": self.logprobs(answer.tokens),
            "finish_reason": finish_reason(answer),
        }

    def _logprob(self, token: Token) -> dict[str, Any]:
        top = [self._named(alternative) for alternative in token.top]
        return self._named(Logprob(token.token_id, token.logprob or 0.0)) | {"top_logprobs": top}

    def _named(self, entry: Logprob) -> dict[str, Any]:
        data = self.tokenizer.token_bytes(entry.token_id)
        return {
            "token": data.decode(errors="replace"),
            "logprob": finite(entry.logprob),
            "bytes": list(data),
        }


class ChatRendering:
    """A completion as chunks. The usage comes in one of its own, after all choices have finished."""

    content_type = sse.CONTENT_TYPE
    keep_alive = sse.KEEP_ALIVE

    def __init__(self, head: ChatHead, writers: Sequence[ChoiceWriter]) -> None:
        self._head = head
        self._writers = writers
        self._mould = sse.Mould(self._payload(_choice(sse.HOLE, sse.HOLE, sse.HOLE, None)))

    def begin(self) -> bytes:
        """The role, for every choice."""
        opening = {"role": "assistant", "content": ""}
        return b"".join(self._chunk(choice, opening) for choice in range(self._head.chat.options.n))

    def pieces(self, pieces: Sequence[Piece]) -> bytes:
        """New content of each choice: what arrived together shares a chunk."""
        chunks = []
        for choice in dict.fromkeys(piece.choice for piece in pieces):
            own = [piece for piece in pieces if piece.choice == choice]
            written = self._writers[choice].write([delta for piece in own for delta in piece.deltas])
            tokens = [token for piece in own for token in piece.tokens]
            if tokens and not written:
                written = [{"content": ""}]
            chunks += [self._chunk(choice, delta, () if index else tokens) for index, delta in enumerate(written)]
        return b"".join(chunks)

    def end(self, answers: Sequence[Answer], latency_ms: int) -> bytes:
        """Why each choice finished, the usage if it was asked for, and the mark of a whole stream."""
        chunks = [self._last_chunk(answer) for answer in answers]
        if self._head.chat.include_usage:
            extras = {"choices": [], "usage": usage(answers), "twinfer": journey_fields(answers[0].journey())}
            chunks.append(sse.encode_event(self._head.fields("chat.completion.chunk") | extras))
        return b"".join(chunks) + sse.DONE

    def failure(self, error: TwinferError) -> bytes:
        """An error event."""
        return sse.encode_event(openai_error_body(error))

    def _chunk(self, choice: int, delta: dict[str, Any], tokens: Sequence[Token] = ()) -> bytes:
        logprobs = self._head.logprobs(tokens) if tokens else None
        return self._mould.fill(choice, delta, logprobs)

    def _last_chunk(self, answer: Answer) -> bytes:
        payload = self._payload(_choice(answer.request.choice, {}, None, finish_reason(answer)))
        journey = {} if self._head.chat.include_usage else {"twinfer": journey_fields(answer.journey())}
        return sse.encode_event(payload | journey)

    def _payload(self, choice: dict[str, Any]) -> dict[str, Any]:
        """A chunk's."""
        usage = {"usage": None} if self._head.chat.include_usage else {}
        return {**self._head.fields("chat.completion.chunk"), "choices": [choice], **usage}


def _choice(index: object, delta: object, logprobs: object, reason: str | None) -> dict[str, Any]:
    return {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": reason}
