"""What the gateway alone can find wrong, and how every error looks to a client of each API family."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import msgspec
from starlette.responses import Response

from twinfer.core import errors as core
from twinfer.identity import refusals


class UnknownOperation(core.RequestError):
    """No API here has this path."""


class WrongMethod(core.RequestError):
    """The path exists, but not with this HTTP method; ``allowed`` are those it has."""

    def __init__(self, message: str, allowed: Sequence[str]) -> None:
        super().__init__(message)
        self.allowed = tuple(allowed)


class UnknownResource(core.RequestError):
    """A well-formed name, such as an ARN, of something that is not here."""


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
    (WrongMethod, Kind(404, "UnknownOperationException")),
    (UnknownResource, Kind(404, "ResourceNotFoundException")),
    (BodyTooLarge, Kind(413, "RequestEntityTooLargeException")),
    (refusals.MissingToken, Kind(403, "MissingAuthenticationTokenException")),
    (refusals.IncompleteSignature, Kind(403, "IncompleteSignature")),
    (refusals.UnrecognizedClient, Kind(403, "UnrecognizedClientException")),
    (refusals.InvalidSignature, Kind(403, "InvalidSignatureException")),
    (refusals.ExpiredToken, Kind(403, "ExpiredTokenException")),
    (core.Unauthenticated, Kind(403, "AccessDeniedException")),
    (core.Forbidden, Kind(403, "AccessDeniedException")),
    (core.RequestError, Kind(400, "ValidationException")),
    (core.Throttled, Kind(429, "ThrottlingException")),
    (core.ModelNotReady, Kind(429, "ModelNotReadyException")),
    (core.CapacityError, Kind(503, "ServiceUnavailableException")),
    (core.WorkerLost, Kind(503, "ServiceUnavailableException")),
    (core.DeadlineExceeded, Kind(408, "ModelTimeoutException")),
    (core.EngineFailure, Kind(424, "ModelErrorException")),
    (core.TwinferError, Kind(500, "InternalServerException")),
)

_BEDROCK_STREAM: tuple[tuple[type[core.TwinferError], str], ...] = (
    (core.RequestError, "validationException"),
    (core.Throttled, "throttlingException"),
    (core.CapacityError, "serviceUnavailableException"),
    (core.WorkerLost, "serviceUnavailableException"),
    (core.DeadlineExceeded, "modelTimeoutException"),
    (core.EngineFailure, "modelStreamErrorException"),
    (core.TwinferError, "internalServerException"),
)
_LOST_RETRY_S = 1.0
"""When a worker was lost, others may be there at once, or it itself again soon."""
_ENGINE_STATUS = 500
"""What the engine itself would have answered, had it been asked over HTTP: a member of the modelled exceptions."""

_OPENAI: tuple[tuple[type[core.TwinferError], Kind, str | None], ...] = (
    (UnknownOperation, Kind(404, "invalid_request_error"), "unknown_url"),
    (UnknownResource, Kind(404, "invalid_request_error"), "not_found"),
    (WrongMethod, Kind(405, "invalid_request_error"), "method_not_supported"),
    (BodyTooLarge, Kind(413, "invalid_request_error"), "request_too_large"),
    (core.Unauthenticated, Kind(401, "invalid_request_error"), "invalid_api_key"),
    (core.Forbidden, Kind(403, "permission_error"), "forbidden"),
    (core.UnknownModel, Kind(404, "invalid_request_error"), "model_not_found"),
    (core.ContextOverflow, Kind(400, "invalid_request_error"), "context_length_exceeded"),
    (core.RequestError, Kind(400, "invalid_request_error"), None),
    (core.Throttled, Kind(429, "rate_limit_error"), "rate_limit_exceeded"),
    (core.ModelNotReady, Kind(503, "server_error"), "model_not_ready"),
    (core.CapacityError, Kind(503, "server_error"), "capacity_exhausted"),
    (core.WorkerLost, Kind(503, "server_error"), "worker_lost"),
    (core.DeadlineExceeded, Kind(408, "timeout_error"), "deadline_exceeded"),
    (core.EngineFailure, Kind(500, "server_error"), "engine_failure"),
    (core.TwinferError, Kind(500, "server_error"), "internal_error"),
)


def bedrock_error(error: core.TwinferError) -> Response:
    """An AWS error response. A failed or overlong generation asks not to be repeated: it would fail as slowly."""
    kind = next(kind for cls, kind in _BEDROCK if isinstance(error, cls))
    message = str(error)
    if isinstance(error, core.UnknownModel):
        if error.where is not None and error.where.startswith("arn:"):
            kind = Kind(404, "ResourceNotFoundException")
        else:
            message = "The provided model identifier is invalid."
    elif isinstance(error, ConstraintViolation):
        message = f"1 validation error detected: {message}"
    body: dict[str, Any] = {"message": message, "__type": kind.name}
    if isinstance(error, core.EngineFailure):
        body["originalStatusCode"] = _ENGINE_STATUS
    return _json(kind.status, body, {"x-amzn-ErrorType": kind.name, **_headers(error)})


def bedrock_stream_exception(error: core.TwinferError, models_timeout: bool) -> tuple[str, dict[str, Any]]:
    """The in-stream exception: its name, as an event-stream header spells it, and its members.

    Args:
        models_timeout: whether the operation's stream knows ``modelTimeoutException``; where it does not, a passed
            deadline is a failure of the model.
    """
    name = next(name for cls, name in _BEDROCK_STREAM if isinstance(error, cls))
    if name == "modelTimeoutException" and not models_timeout:
        name = "modelStreamErrorException"
    body: dict[str, Any] = {"message": str(error)}
    if name == "modelStreamErrorException":
        body |= {"originalStatusCode": _ENGINE_STATUS, "originalMessage": str(error)}
    return name, body


def openai_error(error: core.TwinferError) -> Response:
    """An OpenAI error response."""
    status = next(kind.status for cls, kind, _ in _OPENAI if isinstance(error, cls))
    return _json(status, openai_error_body(error), _headers(error))


def openai_error_body(error: core.TwinferError) -> dict[str, Any]:
    """The envelope, which streams use too."""
    kind, code = next((kind, code) for cls, kind, code in _OPENAI if isinstance(error, cls))
    param = error.where if isinstance(error, core.RequestError) else None
    if isinstance(error, core.UnknownModel):
        param = "model"
    return {"error": {"message": str(error), "type": kind.name, "param": param, "code": code}}


def _headers(error: core.TwinferError) -> dict[str, str]:
    """What would work: another method, or coming back later, in every spelling that some client reads."""
    if isinstance(error, WrongMethod):
        return {"allow": ", ".join(error.allowed)}
    if isinstance(error, core.Throttled | core.CapacityError | core.WorkerLost):
        after_s = _LOST_RETRY_S if isinstance(error, core.WorkerLost) else error.retry_after_s
        ms = max(1, round(after_s * 1000))
        return {
            "x-amz-retry-after": str(ms),
            "retry-after-ms": str(ms),
            "retry-after": str(-(-ms // 1000)),
            "x-should-retry": "true",
        }
    if isinstance(error, core.DeadlineExceeded | core.EngineFailure):
        return {"x-should-retry": "false"}
    return {}


def _json(status: int, body: Mapping[str, Any], headers: dict[str, str]) -> Response:
    return Response(msgspec.json.encode(body), status, headers, "application/json")
