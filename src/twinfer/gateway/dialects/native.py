"""The seam between InvokeModel and the families of models, each of which has bodies of its own."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

from twinfer.core.errors import InvalidRequest
from twinfer.gateway.answers import Answer, Ending, Piece
from twinfer.gateway.dialects.reader import Reader
from twinfer.gateway.prepare import Asked

Chunk: TypeAlias = dict[str, Any]

STOP_REASONS = {
    Ending.END_OF_TURN: "stop",
    Ending.STOP_STRING: "stop",
    Ending.BROKEN_CALL: "stop",
    Ending.MAX_TOKENS: "length",
    Ending.CONTEXT_FULL: "length",
    Ending.TOOL_CALLS: "tool_calls",
}
"""The words that all families but Nova have for it."""


@dataclass(frozen=True, slots=True)
class Addressed:
    """Around a body.

    Attributes:
        model: as the path names it.
        created: Unix time.
        streamed: whether the operation is the streaming one.
    """

    model: str
    request_id: str
    created: int
    streamed: bool


class NativeStream(Protocol):
    """Writes one answer in parts; only its last chunk says why the answer ended."""

    def begin(self) -> Sequence[Chunk]:
        """What comes before the first token."""
        ...

    def pieces(self, pieces: Sequence[Piece]) -> Sequence[Chunk]:
        """What became known."""
        ...

    def end(self, answers: Sequence[Answer], latency_ms: int) -> Sequence[Chunk]:
        """The rest; at least one chunk."""
        ...


class NativeRequest(Protocol):
    """A body that was understood."""

    @property
    def asked(self) -> Asked:
        """What it asks for."""
        ...

    def body(self, answers: Sequence[Answer]) -> Chunk:
        """The whole response."""
        ...

    def stream(self, num_prompt_tokens: int) -> NativeStream:
        """Begin a streamed response."""
        ...


ReadNative: TypeAlias = Callable[[Reader, Addressed], NativeRequest]


def required(fields: Reader, name: str) -> Reader:
    """A member that the family's bodies must have.

    Raises:
        InvalidRequest: it is not there; in words that clients match.
    """
    found = fields.get(name)
    if found is None:
        raise InvalidRequest(
            f"Malformed input request: #: required key [{name}] not found, please reformat your input and try again.",
            where=name,
        )
    return found


def why(answer: Answer) -> str:
    """Why a complete answer ended."""
    assert answer.ending is not None
    return STOP_REASONS[answer.ending]
