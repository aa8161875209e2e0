"""Native bodies with ``messages`` and ``choices``: Chat Completions of many families, and Mistral's own form of it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from msgspec.structs import replace

from twinfer.core.errors import InvalidRequest
from twinfer.gateway.answers import Answer, Piece
from twinfer.gateway.dialects.chat_answer import ChoiceWriter, message, usage
from twinfer.gateway.dialects.chat_request import read_chat_fields
from twinfer.gateway.dialects.converse_request import read_inference_config
from twinfer.gateway.dialects.native import Addressed, Chunk, required, why
from twinfer.gateway.dialects.reader import Reader
from twinfer.gateway.names import plain_name, without_version
from twinfer.gateway.prepare import Asked


@dataclass(frozen=True, slots=True)
class Form:
    """How a family departs from Chat Completions.

    Attributes:
        head: members that every body and chunk begins with.
        reason: the member that says why a choice ended.
        has_usage: whether a whole body tells its tokens.
        thinks_aloud: whether reasoning stands in the text, between marks, rather than in a member of its own.
    """

    head: dict[str, Any]
    reason: str = "finish_reason"
    has_usage: bool = True
    thinks_aloud: bool = False


def read_chat_completions(fields: Reader, addressed: Addressed) -> "ChatRequest":
    """The body of Chat Completions. What it says twice, it must say as path and operation do.

    AWS's own examples mix Converse's ``inferenceConfig`` into it, so that is read too.
    """
    required(fields, "messages")
    _check_model(fields, addressed.model)
    _check_stream(fields, addressed.streamed)
    head = {
        "id": f"chatcmpl-{addressed.request_id}",
        "object": "chat.completion.chunk" if addressed.streamed else "chat.completion",
        "created": addressed.created,
        "model": addressed.model,
    }
    form = Form(head, thinks_aloud=plain_name(addressed.model).startswith("openai."))
    return _request(fields.mapping(), addressed, form)


def read_mistral_chat(fields: Reader, addressed: Addressed) -> "ChatRequest":
    """Mistral's body with messages; its ``any`` is ``required`` elsewhere."""
    required(fields, "messages")
    body = fields.mapping()
    if body.get("tool_choice") == "any":
        body = {**body, "tool_choice": "required"}
    return _request(body, addressed, Form({}, reason="stop_reason", has_usage=False))


def _request(body: dict[str, Any], addressed: Addressed, form: Form) -> "ChatRequest":
    ours = {"model": addressed.model, "stream": False, "stream_options": None}
    chat = read_chat_fields(Reader({**body, **ours}, ""))
    if chat.options.top_logprobs is not None:
        raise InvalidRequest("Answers to this body carry no logprobs; ask for them by Chat Completions.", "logprobs")
    config = Reader(body, "").get("inferenceConfig")
    options = chat.options if config is None else replace(chat.options, **read_inference_config(config))
    return ChatRequest(Asked(addressed.model, chat.conversation, options, whole_calls=not addressed.streamed), form)


def _check_model(fields: Reader, model: str) -> None:
    named = fields.get("model")
    if named is None or _stem(named.string()) == _stem(model):
        return
    raise InvalidRequest(
        f"The body's model {named.string()[:100]} is not the path's; leave it out or name the same one.", named.path
    )


def _stem(name: str) -> str:
    """What all spellings of a model's name share; some clients put a route of their own in front, with a slash."""
    return without_version(plain_name(name.rpartition("/")[2]))


def _check_stream(fields: Reader, streamed: bool) -> None:
    flag = fields.get("stream")
    if flag is not None and flag.boolean() != streamed:
        operation = "InvokeModelWithResponseStream" if flag.boolean() else "InvokeModel"
        raise InvalidRequest(f"The body's stream does not fit the operation; use {operation}.", flag.path)


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """A conversation to continue."""

    asked: Asked
    form: Form

    def body(self, answers: Sequence[Answer]) -> Chunk:
        """All choices."""
        form = self.form
        choices = [
            {
                "index": answer.request.choice,
                "message": message(answer, thinks_aloud=form.thinks_aloud),
                form.reason: why(answer),
            }
            for answer in answers
        ]
        told = {"usage": usage(answers)} if form.has_usage else {}
        return {**form.head, "choices": choices, **told}

    def stream(self, num_prompt_tokens: int) -> "ChatStream":
        """Their parts."""
        return ChatStream(self.form, self.asked.options.n)


class ChatStream:
    """All choices, chunk by chunk."""

    def __init__(self, form: Form, num_choices: int) -> None:
        self._form = form
        self._writers = [ChoiceWriter(thinks_aloud=form.thinks_aloud) for _ in range(num_choices)]

    def begin(self) -> Sequence[Chunk]:
        """The role, for every choice."""
        opening = {"role": "assistant", "content": ""}
        return [self._chunk([self._choice(number, opening, None)]) for number in range(len(self._writers))]

    def pieces(self, pieces: Sequence[Piece]) -> Sequence[Chunk]:
        """New content of each choice."""
        return [
            self._chunk([self._choice(piece.choice, delta, None)])
            for piece in pieces
            for delta in self._writers[piece.choice].write(piece.deltas)
        ]

    def end(self, answers: Sequence[Answer], latency_ms: int) -> Sequence[Chunk]:
        """Why each choice ended, in one chunk: clients read no further than the first reason."""
        choices = [
            self._choice(answer.request.choice, self._writers[answer.request.choice].finish(), why(answer))
            for answer in answers
        ]
        told = {"usage": usage(answers)} if self._form.has_usage else {}
        return (self._chunk(choices) | told,)

    def _chunk(self, choices: list[Chunk]) -> Chunk:
        return {**self._form.head, "choices": choices}

    def _choice(self, number: int, delta: Chunk, reason: str | None) -> Chunk:
        return {"index": number, "delta": delta, self._form.reason: reason}
