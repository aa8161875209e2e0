"""OpenAI's Chat Completions and Completions, streamed as server-sent events."""

from typing import Any

import msgspec

from twinfer.loadtest.api import Heard, Options, Question, RubbishError, merged

ROLES = ("user", "assistant")
MAX_EVENT_BYTES = 1 << 22


class _Delta(msgspec.Struct):
    content: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    tool_calls: list[Any] | None = None


class _Choice(msgspec.Struct):
    delta: _Delta | None = None
    text: str | None = None
    finish_reason: str | None = None


class _Usage(msgspec.Struct):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None


class _Journey(msgspec.Struct):
    route: str = ""


class _Event(msgspec.Struct):
    choices: list[_Choice] | None = None
    usage: _Usage | None = None
    error: Any = None
    twinfer: _Journey | None = None


_EVENT = msgspec.json.Decoder(_Event)


class ChatCompletions:
    """``/v1/chat/completions``."""

    path = "/v1/chat/completions"

    def __init__(self, options: Options) -> None:
        self._options = options

    def body(self, question: Question) -> bytes:
        """A request's body."""
        messages = [{"role": ROLES[index % 2], "content": text} for index, text in enumerate(question.said)]
        return _body({"messages": messages}, question, self._options)

    def reader(self) -> "EventReader":
        """A fresh reader, for one answer."""
        return EventReader()


class Completions:
    """``/v1/completions``; earlier turns stand before the prompt as they were."""

    path = "/v1/completions"

    def __init__(self, options: Options) -> None:
        self._options = options

    def body(self, question: Question) -> bytes:
        """A request's body."""
        return _body({"prompt": "\n".join(question.said)}, question, self._options)

    def reader(self) -> "EventReader":
        """A fresh reader, for one answer."""
        return EventReader()


class EventReader:
    """Reads server-sent events of either API."""

    def __init__(self) -> None:
        self.heard = Heard()
        self._rest = b""

    def feed(self, data: bytes) -> None:
        """Take in what came.

        Raises:
            RubbishError: it is no answer of this API.
        """
        *lines, self._rest = (self._rest + data).split(b"\n")
        if len(self._rest) > MAX_EVENT_BYTES:
            raise RubbishError("an event without an end")
        for line in lines:
            if line.startswith(b"data:"):
                self._event(line[5:].strip())
            elif line.strip() and line.split(b":", 1)[0] not in (b"", b"event", b"id", b"retry"):
                raise RubbishError(f"{line[:80].decode(errors='replace')!r} is no line of an event stream")

    def _event(self, payload: bytes) -> None:
        heard = self.heard
        if payload == b"[DONE]":
            heard.ended = True
            return
        try:
            event = _EVENT.decode(payload)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise RubbishError(f"{payload[:80].decode(errors='replace')!r}: {error}") from error
        if event.error is not None:
            heard.failure = str(
                event.error.get("message", event.error) if isinstance(event.error, dict) else event.error
            )
            return
        for choice in event.choices or ():
            if text := _text(choice):
                heard.text.append(text)
            heard.finish = choice.finish_reason or heard.finish
        if event.usage is not None:
            heard.prompt_tokens = event.usage.prompt_tokens
            heard.output_tokens = event.usage.completion_tokens
        if event.twinfer is not None:
            heard.route = event.twinfer.route


def _text(choice: _Choice) -> str:
    delta = choice.delta
    if delta is None:
        return choice.text or ""
    text = delta.content or delta.reasoning_content or delta.reasoning or ""
    return text or ("\u2026" if delta.tool_calls else "")


def _body(asked: dict[str, Any], question: Question, options: Options) -> bytes:
    body = {
        "model": options.model,
        **asked,
        "max_tokens": question.max_tokens,
        "temperature": 0,
        "ignore_eos": True if options.ignore_eos else None,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    return msgspec.json.encode(merged(body, options.extra))
