"""JSON objects in text that comes in pieces."""

import json
from typing import Any

import msgspec


class ObjectScanner:
    """Finds the first object in a text: what stands before its brace, and where it ends.

    Only braces and strings are looked at; whether it is JSON, decoding tells.
    """

    def __init__(self) -> None:
        self._parts: list[str] = []
        self._depth = 0
        self._in_string = False
        self._escaped = False
        self.num_characters = 0
        """Read so far."""
        self.start: int | None = None
        """Where the object begins, once it has."""

    @property
    def text(self) -> str:
        """All that was read, up to the object's end."""
        return "".join(self._parts)

    def feed(self, text: str) -> int | None:
        """The position in this text at which the object is over, if it ends here."""
        for position, character in enumerate(text):
            if self._closes(character, position):
                self._parts.append(text[: position + 1])
                self.num_characters += position + 1
                return position + 1
        self._parts.append(text)
        self.num_characters += len(text)
        return None

    def _closes(self, character: str, position: int) -> bool:
        if self._in_string:
            if self._escaped:
                self._escaped = False
            elif character == "\\":
                self._escaped = True
            elif character == '"':
                self._in_string = False
        elif character == "{":
            if self.start is None:
                self.start = self.num_characters + position
            self._depth += 1
        elif character == "}" and self._depth:
            self._depth -= 1
            return self._depth == 0
        elif character == '"' and self._depth:
            self._in_string = True
        return False


def read_object(text: str) -> dict[str, Any] | None:
    """An object of JSON as models write it, which may have line breaks in its strings; ``None`` if it is none."""
    try:
        value = json.loads(text, strict=False, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def write_object(value: object) -> str | None:
    """The JSON text of an object; of a string that holds one; of nothing; ``None`` for everything else."""
    if value is None:
        return "{}"
    if isinstance(value, str):
        value = read_object(value)
    if not isinstance(value, dict):
        return None
    try:
        return msgspec.json.encode(value).decode()
    except (UnicodeError, RecursionError):  # half a surrogate pair is a string to Python, but not to JSON's readers
        return None


def _refuse(name: str) -> None:
    raise ValueError(f"{name} is not JSON")
