"""What the gateway alone can find wrong, and how every error looks to a client of each API family."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import msgspec
from starlette.responses import Response

from twinfer.core import errors as core


class UnknownOperation(core.RequestError):
    """No API here has this path."""


class WrongMethod(core.RequestError):
    """The path exists, but not with this HTTP method; ``allowed`` are those it has."""

    def __init__(self, message: str, allowed: Sequence[str]) -> None:
        super().__init__(message)
        self.allowed = tuple(allowed)


class BodyTooLarge(core.RequestError):
    """The request's body is longer than the gateway takes."""


class ConstraintViolation(core.InvalidRequest):
    """A field's value is of the wrong type, too small, too large, or not one of those allowed."""


class InternalError(core.TwinferError):
    """A bug of ours. The client learns that there was one; the log holds the rest."""


ErrorResponse: TypeAlias = Callable[[core.TwinferError], Response]


@dataclass(frozen=True, slots=True)
class Kind:
    """How a client sees a class of errors: HTTP status and the API's own word for it."""

    status: int
    name: str


# The first class in a table that an error belongs to decides.

_BEDROCK: tuple[tuple[type[core.TwinferError], Kind], ...] = (
    (UnknownOperation, Kind(404, "UnknownOperationException")),
    (WrongMethod, Kind(405, "UnknownOperationException")),
    (BodyTooLarge, Kind(413, "RequestEntityTooLargeException")),
    (core.Forbidden, Kind(403, "AccessDeniedException")),
    (core.RequestError, Kind(400, "ValidationException")),
    (core.CapacityError, Kind(503, "ServiceUnavailableException")),
    (core.WorkerLost, Kind(503, "ServiceUnavailableException")),
    (core.DeadlineExceeded, Kind(408, "ModelTimeoutException")),
    (core.EngineFailure, Kind(424, "ModelErrorException")),
    (core.TwinferError, Kind(500, "InternalServerException")),
)

_BEDROCK_STREAM: tuple[tuple[type[core.TwinferError], str], ...] = (
    (core.RequestError, "validationException"),
    (core.CapacityError, "serviceUnavailableException"),
    (core.WorkerLost, "serviceUnavailableException"),
    (core.DeadlineExceeded, "modelStreamErrorException"),
    (core.EngineFailure, "modelStreamErrorException"),
    (core.TwinferError, "internalServerException"),
)
"""ConverseStream models no timeout, so a passed deadline is a failure of the model."""

_OPENAI: tuple[tuple[type[core.TwinferError], Kind, str | None], ...] = (
    (UnknownOperation, Kind(404, "invalid_request_error"), "unknown_url"),
    (WrongMethod, Kind(405, "invalid_request_error"), "method_not_supported"),
    (BodyTooLarge, Kind(413, "invalid_request_error"), "request_too_large"),
    (core.Forbidden, Kind(403, "permission_error"), "forbidden"),
    (core.UnknownModel, Kind(404, "invalid_request_error"), "model_not_found"),
    (core.ContextOverflow, Kind(400, "invalid_request_error"), "context_length_exceeded"),
    (core.RequestError, Kind(400, "invalid_request_error"), None),
    (core.CapacityError, Kind(503, "server_error"), "capacity_exhausted"),
    (core.WorkerLost, Kind(503, "server_error"), "worker_lost"),
    (core.DeadlineExceeded, Kind(408, "timeout_error"), "deadline_exceeded"),
    (core.EngineFailure, Kind(500, "server_error"), "engine_failure"),
    (core.TwinferError, Kind(500, "server_error"), "internal_error"),
)


def bedrock_error(error: core.TwinferError) -> Response:
    """An AWS error response."""
    kind = next(kind for cls, kind in _BEDROCK if isinstance(error, cls))
    message = str(error)
    if isinstance(error, core.UnknownModel):
        if error.where is not None and error.where.startswith("arn:"):
            kind = Kind(404, "ResourceNotFoundException")
        else:
            message = "The provided model identifier is invalid."
    elif isinstance(error, ConstraintViolation):
        message = f"1 validation error detected: {message}"
    headers = {"x-amzn-ErrorType": kind.name, **_headers(error)}
    return _json(kind.status, {"message": message, "__type": kind.name}, headers)


def bedrock_stream_exception(error: core.TwinferError) -> str:
    """The name of the in-stream exception, as an event-stream header spells it."""
    return next(name for cls, name in _BEDROCK_STREAM if isinstance(error, cls))


def openai_error(error: core.TwinferError) -> Response:
    """An OpenAI error response. A failed or overlong generation asks not to be repeated: it would fail as slowly."""
    status = next(kind.status for cls, kind, _ in _OPENAI if isinstance(error, cls))
    headers = _headers(error)
    if isinstance(error, core.DeadlineExceeded | core.EngineFailure):
        headers["x-should-retry"] = "false"
    return _json(status, openai_error_body(error), headers)


def openai_error_body(error: core.TwinferError) -> dict[str, Any]:
    """The envelope, which streams use too."""
    kind, code = next((kind, code) for cls, kind, code in _OPENAI if isinstance(error, cls))
    param = error.where if isinstance(error, core.RequestError) else None
    if isinstance(error, core.UnknownModel):
        param = "model"
    return {"error": {"message": str(error), "type": kind.name, "param": param, "code": code}}


def _headers(error: core.TwinferError) -> dict[str, str]:
    """What would work: another method, or coming back later, in the three spellings that clients read."""
    if isinstance(error, WrongMethod):
        return {"allow": ", ".join(error.allowed)}
    if isinstance(error, core.CapacityError):
        ms = max(1, round(error.retry_after_s * 1000))
        return {"x-amz-retry-after": str(ms), "retry-after-ms": str(ms), "retry-after": str(-(-ms // 1000))}
    return {}


def _json(status: int, body: Mapping[str, Any], headers: dict[str, str]) -> Response:
    return Response(msgspec.json.encode(body), status, headers, "application/json")
