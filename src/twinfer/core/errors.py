"""Every error of Twinfer, in one tree. A message says what is wrong and what to do about it.

TwinferError
├── ConfigError           the configuration or command line cannot be used        exit code 2
├── CheckpointError       a model directory is missing, broken or unsupported     exit code 2
├── RequestError          what a client asked cannot be done                      HTTP 4xx
│   ├── InvalidRequest    malformed, out of range, or contradictory               400
│   ├── UnknownModel      no such model here                                      400 or 404, by dialect
│   ├── ContextOverflow   prompt (and answer) longer than the model's context     400
│   ├── Unauthenticated   nobody, or somebody who does not prove it               401 or 403, by dialect
│   └── Forbidden         allowed to others, or never                             403
├── Throttled             the caller's own quota is used up for now               429
├── CapacityError         cannot be done now, may be retried                      503
│   └── ModelNotReady     the model is still being loaded                         429 or 503, by dialect
├── DeadlineExceeded      the request's own deadline passed                       408
├── WorkerLost            a worker died or became unreachable                     503
├── EngineFailure         the engine failed on this request                       424
├── EndpointError         a server that is to be measured cannot be               exit code 1
└── ProtocolError         a peer broke a protocol; its connection is closed
    ├── GrantRefused      a grant is forged, stale, foreign or too wide
    ├── IntegrityError    bytes do not match their digest
    └── TransportError    bytes could not be moved
"""


class TwinferError(Exception):
    """Root of the tree."""


class ConfigError(TwinferError):
    """The configuration or the command line cannot be used."""


class TraceError(ConfigError):
    """A trace cannot be read: the message holds file, line and field."""


class CheckpointError(TwinferError):
    """A model directory is missing, broken or of an unsupported kind."""


class RequestError(TwinferError):
    """What a client asked cannot be done as asked. ``where`` names the field, if there is one."""

    def __init__(self, message: str, where: str | None = None) -> None:
        super().__init__(message)
        self.where = where


class InvalidRequest(RequestError):
    """Malformed, out of range, or contradictory."""


class UnknownModel(RequestError):
    """No model of that name is served here."""


class ContextOverflow(RequestError):
    """The prompt does not fit into the model's context."""


class Unauthenticated(RequestError):
    """Who asks is unknown, or not proven."""


class Forbidden(RequestError):
    """The operator does not allow this."""


class Throttled(TwinferError):
    """Not now: the caller's own quota is used up. ``retry_after_s`` is a hint to the client."""

    def __init__(self, message: str, retry_after_s: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class CapacityError(TwinferError):
    """Not now: no free capacity. ``retry_after_s`` is a hint to the client."""

    def __init__(self, message: str, retry_after_s: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class ModelNotReady(CapacityError):
    """Not yet: no worker of the model has come up since the server started."""


class DeadlineExceeded(TwinferError):
    """The request's own deadline passed."""


class WorkerLost(TwinferError):
    """A worker died or became unreachable."""


class EngineFailure(TwinferError):
    """The engine failed on this request; others are not concerned."""


class EndpointError(TwinferError):
    """A server that is to be measured cannot be: it is not there, refuses, or does not speak the API."""


class ProtocolError(TwinferError):
    """A peer broke a protocol."""


class GrantRefused(ProtocolError):
    """A grant is forged, stale, foreign or too wide; the message holds which."""


class IntegrityError(ProtocolError):
    """Bytes do not match their digest."""


class TransportError(ProtocolError):
    """Bytes could not be moved: the peer is gone, refused, broke off, or was too slow."""
