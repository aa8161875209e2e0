"""Reads a JSON body so that every complaint names the place and the value."""

import re
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from twinfer.core.errors import InvalidRequest
from twinfer.gateway.errors import ConstraintViolation

_MAX_INT = 2**63 - 1
_MAX_SHOWN = 100


def read_json(body: bytes) -> "Reader":
    """The body's object.

    Raises:
        InvalidRequest: it is not JSON, or not an object.
    """
    try:
        value = msgspec.json.decode(body)
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise InvalidRequest(f"Malformed input request: {error}, please reformat your input and try again.") from error
    if not isinstance(value, dict):
        raise InvalidRequest("Malformed input request: expected a JSON object, please reformat your input.")
    return Reader(value, "")


class Reader:
    """A JSON value and its path in the body. ``null`` counts as absent."""

    __slots__ = ("path", "value")

    def __init__(self, value: Any, path: str) -> None:
        self.value = value
        self.path = path

    def get(self, name: str) -> "Reader | None":
        """A member of this object, if it is there."""
        value = self.mapping().get(name)
        return None if value is None else Reader(value, self._join(name))

    def need(self, name: str) -> "Reader":
        """A member of this object that must be there."""
        found = self.get(name)
        if found is None:
            raise ConstraintViolation(
                f"Value at '{self._join(name)}' failed to satisfy constraint: Member must not be null", self._join(name)
            )
        return found

    def members(self) -> Iterator[tuple[str, "Reader"]]:
        """The members of this object that are there."""
        for name, value in self.mapping().items():
            if value is not None:
                yield name, Reader(value, self._join(name))

    def items(self, at_least: int = 0, at_most: int = _MAX_INT) -> list["Reader"]:
        """The elements of this list."""
        if not isinstance(self.value, list):
            raise self.violation("Member must be a list")
        self._check_length(at_least, at_most)
        return [Reader(value, self._join(str(index))) for index, value in enumerate(self.value)]

    def string(self, at_least: int = 0, at_most: int = _MAX_INT, pattern: str = "") -> str:
        """This string; lengths in characters."""
        if not isinstance(self.value, str):
            raise self.violation("Member must be a string")
        self._check_length(at_least, at_most)
        if pattern and not re.fullmatch(pattern, self.value):
            raise self.violation(f"Member must satisfy regular expression pattern: {pattern}")
        return self.value

    def one_of(self, words: Sequence[str]) -> str:
        """This string, one of a few."""
        if self.value not in words:
            raise self.violation(f"Member must satisfy enum value set: [{', '.join(words)}]")
        return str(self.value)

    def integer(self, at_least: int = -_MAX_INT, at_most: int = _MAX_INT) -> int:
        """This whole number."""
        if not isinstance(self.value, int) or isinstance(self.value, bool):
            raise self.violation("Member must be an integer")
        self._check_range(at_least, at_most)
        return self.value

    def number(self, at_least: float, at_most: float) -> float:
        """This number."""
        if not isinstance(self.value, int | float) or isinstance(self.value, bool):
            raise self.violation("Member must be a number")
        self._check_range(at_least, at_most)
        return float(self.value)

    def boolean(self) -> bool:
        """This truth value."""
        if not isinstance(self.value, bool):
            raise self.violation("Member must be a boolean")
        return self.value

    def mapping(self) -> dict[str, Any]:
        """This object as it is, members that are ``null`` included."""
        if not isinstance(self.value, dict):
            raise self.violation("Member must be an object")
        return self.value

    def violation(self, rule: str) -> ConstraintViolation:
        """The error that says that this value breaks a rule."""
        return ConstraintViolation(
            f"Value '{_shown(self.value)}' at '{self.path}' failed to satisfy constraint: {rule}", self.path
        )

    def _join(self, name: str) -> str:
        return f"{self.path}.{name}" if self.path else name

    def _check_length(self, at_least: int, at_most: int) -> None:
        if len(self.value) < at_least:
            raise self.violation(f"Member must have length greater than or equal to {at_least}")
        if len(self.value) > at_most:
            raise self.violation(f"Member must have length less than or equal to {at_most}")

    def _check_range(self, at_least: float, at_most: float) -> None:
        if self.value < at_least:
            raise self.violation(f"Member must have value greater than or equal to {at_least}")
        if self.value > at_most:
            raise self.violation(f"Member must have value less than or equal to {at_most}")


def _shown(value: object) -> str:
    """A value short enough for a message."""
    if isinstance(value, dict | list):
        return "{...}" if isinstance(value, dict) else "[...]"
    text = value if isinstance(value, str) else msgspec.json.encode(value).decode()
    return text if len(text) <= _MAX_SHOWN else text[:_MAX_SHOWN] + "..."
