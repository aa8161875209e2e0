"""Every error as clients of each API see it."""

import msgspec
import pytest

from tests.gateway.output_shape import MODELS, check_error, check_event
from twinfer.core.errors import (
    CapacityError,
    ContextOverflow,
    DeadlineExceeded,
    EngineFailure,
    Forbidden,
    IntegrityError,
    InvalidRequest,
    ModelNotReady,
    Throttled,
    TwinferError,
    UnknownModel,
    WorkerLost,
)
from twinfer.gateway.errors import (
    BodyTooLarge,
    ConstraintViolation,
    InternalError,
    UnknownOperation,
    UnknownResource,
    WrongMethod,
    bedrock_error,
    bedrock_stream_exception,
    openai_error,
)

RUNTIME = MODELS["bedrock-runtime"]
CONVERSE = RUNTIME.operation_model("Converse")
HINTS = ("x-amz-retry-after", "retry-after-ms", "retry-after")
ERRORS: list[tuple[TwinferError, int, str, str]] = [
    (InvalidRequest("Bad."), 400, "ValidationException", "validationException"),
    (ConstraintViolation("Bad."), 400, "ValidationException", "validationException"),
    (ContextOverflow("Long."), 400, "ValidationException", "validationException"),
    (UnknownModel("Who?", "foo.bar"), 400, "ValidationException", "validationException"),
    (UnknownModel("Who?", "arn:aws:bedrock:x"), 404, "ResourceNotFoundException", "validationException"),
    (UnknownResource("Where?"), 404, "ResourceNotFoundException", "validationException"),
    (UnknownOperation("What?"), 404, "UnknownOperationException", "validationException"),
    (WrongMethod("How?", ["POST"]), 404, "UnknownOperationException", "validationException"),
    (BodyTooLarge("Much."), 413, "RequestEntityTooLargeException", "validationException"),
    (Forbidden("No."), 403, "AccessDeniedException", "validationException"),
    (Throttled("Too many tokens.", 2.5), 429, "ThrottlingException", "throttlingException"),
    (ModelNotReady("Loading.", 2.5), 429, "ModelNotReadyException", "serviceUnavailableException"),
    (CapacityError("Full.", 2.5), 503, "ServiceUnavailableException", "serviceUnavailableException"),
    (WorkerLost("Gone."), 503, "ServiceUnavailableException", "serviceUnavailableException"),
    (DeadlineExceeded("Late."), 408, "ModelTimeoutException", "modelTimeoutException"),
    (EngineFailure("Broken."), 424, "ModelErrorException", "modelStreamErrorException"),
    (IntegrityError("Bad bytes."), 500, "InternalServerException", "internalServerException"),
    (InternalError("Oops."), 500, "InternalServerException", "internalServerException"),
]


@pytest.mark.parametrize(("error", "status", "name", "in_stream"), ERRORS)
def test_bedrock_s_words(error: TwinferError, status: int, name: str, in_stream: str) -> None:
    """One of the operation's own exceptions, with its status; quota, loading and capacity are told apart."""
    response = bedrock_error(error)
    assert (status, name) == (response.status_code, response.headers["x-amzn-errortype"])
    check_error(CONVERSE, status, response.headers, msgspec.json.decode(response.body))


@pytest.mark.parametrize(("error", "status", "name", "in_stream"), ERRORS)
def test_bedrock_s_words_in_a_stream(error: TwinferError, status: int, name: str, in_stream: str) -> None:
    """Each stream has only those that it models: one of them knows no timeout."""
    for operation, models_timeout in (("ConverseStream", False), ("InvokeModelWithResponseStream", True)):
        said, body = bedrock_stream_exception(error, models_timeout)
        check_event(RUNTIME.operation_model(operation), said, body)
        timeout_as_error = in_stream == "modelTimeoutException" and not models_timeout
        assert said == ("modelStreamErrorException" if timeout_as_error else in_stream)


@pytest.mark.parametrize(
    ("error", "hints", "retry"),
    [
        (Throttled("Slow.", 2.5), ["2500", "2500", "3"], "true"),
        (ModelNotReady("Loading.", 5), ["5000", "5000", "5"], "true"),
        (CapacityError("Full.", 0.0001), ["1", "1", "1"], "true"),
        (WorkerLost("Gone."), ["1000", "1000", "1"], "true"),
        (DeadlineExceeded("Late."), [None] * 3, "false"),
        (EngineFailure("Broken."), [None] * 3, "false"),
        (InvalidRequest("Bad."), [None] * 3, None),
    ],
)
def test_whoever_may_come_back_is_told_when(error: TwinferError, hints: list[str | None], retry: str | None) -> None:
    """In every spelling that some client reads, by both APIs; what would fail as slowly again is not to be repeated."""
    for response in (bedrock_error(error), openai_error(error)):
        assert hints == [response.headers.get(name) for name in HINTS]
        assert retry == response.headers.get("x-should-retry")


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (Throttled("Slow."), 429, "rate_limit_exceeded"),
        (ModelNotReady("Loading."), 503, "model_not_ready"),
        (CapacityError("Full."), 503, "capacity_exhausted"),
        (UnknownModel("Who?"), 404, "model_not_found"),
    ],
)
def test_openai_s_words(error: TwinferError, status: int, code: str) -> None:
    """Quota is 429, and everything of ours is 503."""
    response = openai_error(error)
    assert (status, code) == (response.status_code, msgspec.json.decode(response.body)["error"]["code"])
