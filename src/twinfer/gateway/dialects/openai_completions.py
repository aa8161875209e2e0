"""OpenAI's Completions: prompts continued, whole or as server-sent chunks."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
from starlette.responses import Response

from twinfer.core.errors import TwinferError
from twinfer.core.tokens import Token
from twinfer.gateway.answers import Answer, Piece, join_text
from twinfer.gateway.dialects import sse
from twinfer.gateway.dialects.chat_answer import finish_reason, usage
from twinfer.gateway.dialects.completions_request import Completion, read_completion
from twinfer.gateway.dialects.journey import journey_fields
from twinfer.gateway.dialects.logprobs import finite
from twinfer.gateway.errors import openai_error_body
from twinfer.gateway.exchange import Call, Context, Plain, Streamed, Work
from twinfer.gateway.prepare import Asked, prepare_each
from twinfer.gateway.text.tokenizer import Tokenizer


async def completions(call: Call, context: Context) -> Plain | Streamed:
    """Completions, streamed if the body says so."""
    asked = await call.read(read_completion)
    work = await prepare_each(call, context, [Asked(asked.model, prompt, asked.options) for prompt in asked.prompts])
    head = CompletionHead(f"cmpl-{call.request_id}", int(time.time()), asked, work)
    return Streamed(work, CompletionRendering(head)) if asked.stream else Plain(work, head.render)


@dataclass(frozen=True, slots=True)
class CompletionHead:
    """What stays the same from the first chunk to the last."""

    id: str
    created: int
    asked: Completion
    work: Work

    @property
    def tokenizer(self) -> Tokenizer:
        """The model's."""
        return self.work.model.tokenizer

    def fields(self) -> dict[str, Any]:
        """What every body and chunk begins with; both are the same object here."""
        return {
            "id": self.id,
            "object": "text_completion",
            "created": self.created,
            "model": self.work.model.id,
            "system_fingerprint": sse.FINGERPRINT,
        }

    def render(self, answers: Sequence[Answer], latency_ms: int) -> Response:
        """All choices in one body."""
        choices = [
            {
                "index": answer.request.choice,
                "text": self.echoed(answer.request.choice) + answer.text,
                "logprobs": self.logprobs(answer.tokens, len(self.echoed(answer.request.choice))),
                "finish_reason": finish_reason(answer),
            }
            for answer in answers
        ]
        told = {"usage": self.usage(answers), "twinfer": journey_fields(answers[0].journey())}
        return Response(
            msgspec.json.encode({**self.fields(), "choices": choices, **told}), media_type="application/json"
        )

    def echoed(self, choice: int) -> str:
        """What comes in front of a choice: its prompt, if it was asked for."""
        if not self.asked.echo:
            return ""
        content = self.asked.prompts[choice // self.asked.options.n].content
        return content if isinstance(content, str) else self.tokenizer.decode(content)

    def logprobs(self, tokens: Sequence[Token], offset: int) -> dict[str, Any] | None:
        """The older form: lists side by side."""
        if self.asked.options.top_logprobs is None:
            return None
        names = [self._name(token.token_id) for token in tokens]
        offsets = [offset]
        for name in names:
            offsets.append(offsets[-1] + len(name))
        return {
            "tokens": names,
            "token_logprobs": [finite(token.logprob) for token in tokens],
            "top_logprobs": [{self._name(top.token_id): finite(top.logprob) for top in token.top} for token in tokens],
            "text_offset": offsets[:-1],
        }

    def usage(self, answers: Sequence[Answer]) -> dict[str, Any]:
        """Over all prompts."""
        told = [
            usage(answers[start : start + self.asked.options.n])
            for start in range(0, len(answers), self.asked.options.n)
        ]
        summed = {
            name: sum(part[name] for part in told) for name in ("prompt_tokens", "completion_tokens", "total_tokens")
        }
        cached = sum(part["prompt_tokens_details"]["cached_tokens"] for part in told)
        return {**summed, "prompt_tokens_details": {"cached_tokens": cached}}

    def _name(self, token_id: int) -> str:
        return self.tokenizer.token_bytes(token_id).decode(errors="replace")


class CompletionRendering:
    """Completions as chunks. The usage comes in one of its own, after all choices have finished."""

    content_type = sse.CONTENT_TYPE
    keep_alive = sse.KEEP_ALIVE

    def __init__(self, head: CompletionHead) -> None:
        self._head = head
        self._lengths: dict[int, int] = {}
        """Characters of each choice so far."""
        holes = {name: sse.HOLE for name in ("index", "text", "logprobs", "finish_reason")}
        told = {"usage": None} if head.asked.include_usage else {}
        self._mould = sse.Mould({**head.fields(), "choices": [holes], **told})

    def begin(self) -> bytes:
        """The prompts, if they were asked for."""
        echoes = ((choice, self._head.echoed(choice)) for choice in range(len(self._head.work.choices)))
        return b"".join(self._chunk(choice, text, (), None) for choice, text in echoes if text)

    def pieces(self, pieces: Sequence[Piece]) -> bytes:
        """New text of each choice: what arrived together shares a chunk."""
        chunks = []
        for choice in dict.fromkeys(piece.choice for piece in pieces):
            own = [piece for piece in pieces if piece.choice == choice]
            text, tokens = join_text(own), [token for piece in own for token in piece.tokens]
            if text or tokens:
                chunks.append(self._chunk(choice, text, tokens, None))
        return b"".join(chunks)

    def end(self, answers: Sequence[Answer], latency_ms: int) -> bytes:
        """Why each choice finished, the usage if it was asked for, and the mark of a whole stream."""
        chunks = [self._chunk(answer.request.choice, "", (), finish_reason(answer)) for answer in answers]
        if self._head.asked.include_usage:
            told = {"usage": self._head.usage(answers), "twinfer": journey_fields(answers[0].journey())}
            chunks.append(sse.encode_event({**self._head.fields(), "choices": [], **told}))
        return b"".join(chunks) + sse.DONE

    def failure(self, error: TwinferError) -> bytes:
        """An error event."""
        return sse.encode_event(openai_error_body(error))

    def _chunk(self, choice: int, text: str, tokens: Sequence[Token], reason: str | None) -> bytes:
        offset = self._lengths.get(choice, 0)
        self._lengths[choice] = offset + len(text)
        logprobs = self._head.logprobs(tokens, offset) if tokens else None
        return self._mould.fill(choice, text, logprobs, reason)
