"""Checks what the gateway sends against botocore's own description of Bedrock's responses, byte for byte as sent."""

import re
from collections.abc import Iterator
from functools import cache
from typing import Any
from urllib.parse import urlsplit

import botocore.session
import msgspec
from botocore.eventstream import EventStreamBuffer
from botocore.model import OperationModel, Shape

UNMODELLED = frozenset({"p", "twinfer", "__type"})
"""Padding, which AWS sends too; where an answer's time went; the exception's name a second time."""
GENERIC = {
    "UnknownOperationException": 404,
    "RequestEntityTooLargeException": 413,
    "MissingAuthenticationTokenException": 403,
    "IncompleteSignature": 403,
    "UnrecognizedClientException": 403,
    "InvalidSignatureException": 403,
    "ExpiredTokenException": 403,
}
"""Errors that no operation lists."""
_TYPES = {"string": str, "integer": int, "long": int, "boolean": bool, "timestamp": str, "blob": str}

SESSION = botocore.session.get_session()
MODELS = {name: SESSION.get_service_model(name) for name in ("bedrock-runtime", "bedrock")}


def check_response(method: str, path: str, status: int, headers: Any, body: bytes) -> None:
    """A whole response of either plane; paths that are neither's pass."""
    if (operation := _operation(method, urlsplit(path).path)) is None:
        return
    assert headers["x-amzn-requestid"]
    if status != 200:
        check_error(operation, status, headers, msgspec.json.decode(body))
    elif operation.get_event_stream_output() is not None:
        for name, payload in events(body):
            check_event(operation, name, payload)
    elif not operation.has_streaming_output:
        check_shape(operation.output_shape, msgspec.json.decode(body))


def check_error(operation: OperationModel, status: int, headers: Any, body: Any) -> None:
    """An error is one that the operation knows, with the status and the members it has there."""
    name = headers["x-amzn-errortype"]
    known = {shape.name: shape for shape in operation.error_shapes}
    assert name in known or name in GENERIC, f"{operation.name} knows no {name}"
    if name in known:
        check_shape(known[name], body)
        assert known[name].metadata["error"]["httpStatusCode"] == status
    assert GENERIC.get(name, status) == status
    assert body["message"]
    assert body["__type"] == name


def check_event(operation: OperationModel, name: str, payload: Any) -> None:
    """An event, or an exception under its event's name."""
    stream = operation.get_event_stream_output()
    assert name in stream.members, f"{operation.name} knows no event {name}"
    check_shape(stream.members[name], payload, name)


def check_shape(shape: Shape, value: Any, path: str = "$") -> None:
    """Required members are there, unions have one, nothing is unknown; types, bounds, patterns and words hold."""
    if shape.type_name == "structure":
        _check_structure(shape, value, path)
    elif shape.type_name == "list":
        assert isinstance(value, list), path
        _check_bounds(shape, len(value), path)
        for index, member in enumerate(value):
            check_shape(shape.member, member, f"{path}[{index}]")
    elif shape.type_name == "map":
        for name, member in value.items():
            check_shape(shape.key, name, f"{path}.{name}")
            check_shape(shape.value, member, f"{path}.{name}")
    else:
        assert type(value) is _TYPES[shape.type_name], f"{path} is {value!r}"
        _check_bounds(shape, value if isinstance(value, int) else len(value), path)
        assert value in shape.metadata.get("enum", [value]), f"{path} is {value!r}"
        assert re.fullmatch(shape.metadata.get("pattern", "(?s:.*)"), str(value)), f"{path} is {value!r}"


def _check_structure(shape: Any, value: Any, path: str) -> None:
    assert isinstance(value, dict), path
    if getattr(shape, "is_document_type", False):
        return
    members = {member.serialization.get("name", name): member for name, member in shape.members.items()}
    assert not set(shape.required_members) - set(value), f"{path} lacks {set(shape.required_members) - set(value)}"
    unknown = set(value) - set(members) - UNMODELLED
    assert not unknown, f"{path} has {unknown}"
    assert not getattr(shape, "is_tagged_union", False) or len(value) == 1, f"{path} is a union of {list(value)}"
    for name, member in value.items():
        if name in members:
            check_shape(members[name], member, f"{path}.{name}")


def _check_bounds(shape: Shape, size: int, path: str) -> None:
    assert shape.metadata.get("min", size) <= size <= shape.metadata.get("max", size), f"{path} has size {size}"


def events(body: bytes) -> Iterator[tuple[str, Any]]:
    """Event or exception type and payload of every frame, by botocore's own parser."""
    buffer = EventStreamBuffer()
    buffer.add_data(body)
    for event in buffer:
        name = event.headers.get(":event-type") or event.headers[":exception-type"]
        yield name, msgspec.json.decode(event.payload)


@cache
def _operations() -> list[tuple[str, re.Pattern[str], OperationModel]]:
    """Method and path of every operation of both planes."""
    found = []
    for model in MODELS.values():
        for name in model.operation_names:
            operation = model.operation_model(name)
            pattern = re.sub(r"\\\{\w+\\\}", ".+", re.escape(operation.http["requestUri"]))
            found.append((operation.http["method"], re.compile(pattern), operation))
    return found


def _operation(method: str, path: str) -> OperationModel | None:
    matching = (each for wanted, pattern, each in _operations() if wanted == method and pattern.fullmatch(path))
    return next(matching, None)
