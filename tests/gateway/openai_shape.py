"""Holds what the gateway sends to the openai package's own types: every member they require, of the right type."""

from typing import Any

import msgspec
from openai.types import Completion
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import BaseModel, TypeAdapter

_EVENTS: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)


def whole(model: type[BaseModel], data: bytes) -> Any:
    """A body, and nothing in it is of another type than the package says."""
    model.model_validate_json(data, strict=True)
    return msgspec.json.decode(data)


def chat(data: bytes) -> Any:
    """A completion of Chat Completions."""
    return whole(ChatCompletion, data)


def completion(data: bytes) -> Any:
    """A completion of the older API."""
    return whole(Completion, data)


def response(data: bytes) -> Any:
    """A response."""
    return whole(Response, data)


def chat_chunks(data: bytes) -> list[Any]:
    """The chunks of a whole stream, without its mark."""
    return _stream(ChatCompletionChunk, data)


def completion_chunks(data: bytes) -> list[Any]:
    """The same of the older API."""
    return _stream(Completion, data, partial=True)


def response_events(data: bytes) -> list[Any]:
    """The events of a response, whose names stand before them, too, and which count up from 0."""
    events = []
    for block in data.decode().removesuffix("\n\n").split("\n\n"):
        name, line = block.split("\n")
        payload = line.removeprefix("data: ")
        _EVENTS.validate_json(payload, strict=True)
        events.append(msgspec.json.decode(payload))
        assert name == f"event: {events[-1]['type']}"
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    return events


def _stream(model: type[BaseModel], data: bytes, *, partial: bool = False) -> list[Any]:
    *lines, mark, end = data.split(b"\n\n")
    assert (mark, end) == (b"data: [DONE]", b"")
    chunks = []
    for line in lines:
        chunk = msgspec.json.decode(line.removeprefix(b"data: "))
        checked = msgspec.json.encode(_finished(chunk)) if partial else line.removeprefix(b"data: ")
        model.model_validate_json(checked, strict=True)
        chunks.append(chunk)
    return chunks


def _finished(chunk: Any) -> Any:
    """The package's type of a completion is a whole one's: a chunk's choice has no reason yet."""
    return {**chunk, "choices": [choice | {"finish_reason": "stop"} for choice in chunk["choices"]]}
