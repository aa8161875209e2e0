"""What a dialect of an endpoint has to know: how a question is put, and what an answer's bytes mean."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol


class RubbishError(Exception):
    """Bytes that are no answer of this API."""


@dataclass(frozen=True, slots=True)
class Question:
    """One request before a dialect words it.

    Attributes:
        said: texts of user and assistant in turn; the first and the last are the user's.
        max_tokens: the longest answer.
    """

    said: Sequence[str]
    max_tokens: int


@dataclass(frozen=True, slots=True)
class Options:
    """What every request of a run says alike.

    Attributes:
        model: whom to ask.
        ignore_eos: answers are to be as long as they may be; servers know it by this name or not at all.
        extra: further fields of the body; a field that is ``None`` is left out.
    """

    model: str
    ignore_eos: bool = False
    extra: Mapping[str, Any] = field(default_factory=dict)


@dataclass(slots=True)
class Heard:
    """An answer so far.

    Attributes:
        text: its pieces.
        prompt_tokens, output_tokens: as the server counted.
        ended: the server said that it is whole.
        failure: an error that came instead of the rest.
    """

    text: list[str] = field(default_factory=list)
    prompt_tokens: int | None = None
    output_tokens: int | None = None
    finish: str = ""
    route: str = ""
    ended: bool = False
    failure: str = ""


class Reader(Protocol):
    """Makes sense of one answer's bytes."""

    heard: Heard

    def feed(self, data: bytes) -> None:
        """Take in what came.

        Raises:
            RubbishError: it is no answer of this API.
        """
        ...


class Api(Protocol):
    """A dialect."""

    path: str
    """Where requests go."""

    def body(self, question: Question) -> bytes:
        """A request's body."""
        ...

    def reader(self) -> Reader:
        """A fresh reader, for one answer."""
        ...


def merged(body: dict[str, Any], extra: Mapping[str, Any]) -> dict[str, Any]:
    """The body with further fields, and without those that are ``None``."""
    return {name: value for name, value in {**body, **extra}.items() if value is not None}
