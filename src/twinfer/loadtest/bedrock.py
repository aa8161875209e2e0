"""Bedrock's ConverseStream: JSON in, frames of AWS's event stream out."""

import struct
import zlib
from collections.abc import Iterator
from urllib.parse import quote

import msgspec

from twinfer.loadtest.api import Heard, Options, Question, RubbishError, merged

ROLES = ("user", "assistant")
MAX_FRAME_BYTES = 1 << 24
_FIXED_BYTES = {0: 0, 1: 0, 2: 1, 3: 2, 4: 4, 5: 8, 8: 8, 9: 16}
"""Sizes of header values by type; types 6 and 7 begin with theirs."""


class _Reasoning(msgspec.Struct):
    text: str = ""


class _Tool(msgspec.Struct):
    input: str = ""


class _Delta(msgspec.Struct):
    text: str = ""
    reasoning: _Reasoning | None = msgspec.field(default=None, name="reasoningContent")
    tool: _Tool | None = msgspec.field(default=None, name="toolUse")


class _Usage(msgspec.Struct):
    input_tokens: int | None = msgspec.field(default=None, name="inputTokens")
    output_tokens: int | None = msgspec.field(default=None, name="outputTokens")
    cache_read: int = msgspec.field(default=0, name="cacheReadInputTokens")
    cache_write: int = msgspec.field(default=0, name="cacheWriteInputTokens")

    @property
    def prompt_tokens(self) -> int | None:
        """Of the whole prompt: what caches held is counted apart."""
        return None if self.input_tokens is None else self.input_tokens + self.cache_read + self.cache_write


class _Journey(msgspec.Struct):
    route: str = ""


class _Payload(msgspec.Struct):
    delta: _Delta | None = None
    stop_reason: str = msgspec.field(default="", name="stopReason")
    usage: _Usage | None = None
    twinfer: _Journey | None = None
    message: str = ""


_PAYLOAD = msgspec.json.Decoder(_Payload)


class ConverseStream:
    """``/model/{model}/converse-stream``."""

    def __init__(self, options: Options) -> None:
        self.path = f"/model/{quote(options.model, safe='')}/converse-stream"
        self._options = options

    def body(self, question: Question) -> bytes:
        """A request's body."""
        messages = [{"role": ROLES[index % 2], "content": [{"text": text}]} for index, text in enumerate(question.said)]
        body = {
            "messages": messages,
            "inferenceConfig": {"maxTokens": question.max_tokens, "temperature": 0},
            "additionalModelRequestFields": {"ignore_eos": True} if self._options.ignore_eos else None,
        }
        return msgspec.json.encode(merged(body, self._options.extra))

    def reader(self) -> "FrameReader":
        """A fresh reader, for one answer."""
        return FrameReader()


class FrameReader:
    """Reads the frames of one answer."""

    def __init__(self) -> None:
        self.heard = Heard()
        self._rest = b""

    def feed(self, data: bytes) -> None:
        """Take in what came.

        Raises:
            RubbishError: it is no answer of this API.
        """
        self._rest += data
        for headers, payload in self._frames():
            self._event(headers, payload)

    def _frames(self) -> Iterator[tuple[dict[str, str], bytes]]:
        while len(self._rest) >= 12:
            total, head, checksum = struct.unpack_from(">III", self._rest)
            if zlib.crc32(self._rest[:8]) != checksum or not 16 + head <= total <= MAX_FRAME_BYTES:
                raise RubbishError(f"{self._rest[:12]!r} begins no frame of an event stream")
            if len(self._rest) < total:
                return
            frame, self._rest = self._rest[:total], self._rest[total:]
            if zlib.crc32(frame[:-4]) != struct.unpack_from(">I", frame, total - 4)[0]:
                raise RubbishError("a frame's checksum is wrong")
            yield _headers(frame[12 : 12 + head]), frame[12 + head : -4]

    def _event(self, headers: dict[str, str], payload: bytes) -> None:
        heard, kind = self.heard, headers.get(":event-type", "")
        try:
            event = _PAYLOAD.decode(payload or b"{}")
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise RubbishError(f"{kind}: {payload[:80].decode(errors='replace')!r}: {error}") from error
        if headers.get(":message-type", "event") != "event":
            name = headers.get(":exception-type") or headers.get(":error-code", "error")
            heard.failure = f"{name}: {event.message or headers.get(':error-message', '')}"
        elif kind == "contentBlockDelta" and event.delta is not None:
            if text := _text(event.delta):
                heard.text.append(text)
        elif kind == "messageStop":
            heard.finish, heard.ended = event.stop_reason, True
        elif kind == "metadata":
            if event.usage is not None:
                heard.prompt_tokens, heard.output_tokens = event.usage.prompt_tokens, event.usage.output_tokens
            heard.route = event.twinfer.route if event.twinfer is not None else heard.route


def _text(delta: _Delta) -> str:
    thought = delta.reasoning.text if delta.reasoning is not None else ""
    return delta.text or thought or (delta.tool.input if delta.tool is not None else "")


def _headers(raw: bytes) -> dict[str, str]:
    found, position = {}, 0
    try:
        while position < len(raw):
            end = position + 1 + raw[position]
            name, kind = raw[position + 1 : end].decode(), raw[end]
            position = end + 1
            if kind in (6, 7):
                (size,) = struct.unpack_from(">H", raw, position)
                position += 2
                if kind == 7:
                    found[name] = raw[position : position + size].decode()
            else:
                size = _FIXED_BYTES[kind]
            position += size
    except (IndexError, KeyError, struct.error, UnicodeDecodeError) as error:
        raise RubbishError("a frame's headers are cut short") from error
    return found
