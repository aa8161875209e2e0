"""JSON objects in text that comes in pieces."""

import json
from typing import Any

import msgspec


class Braces:
    """Where in an object a text stands, by its braces and strings; whether it is JSON, decoding tells."""

    def __init__(self) -> None:
        self.depth = 0
        self.in_string = False
        self._escaped = False

    def step(self, character: str) -> None:
        """Read one more character."""
        if self.in_string:
            if self._escaped:
                self._escaped = False
            elif character == "\\":
                self._escaped = True
            elif character == '"':
                self.in_string = False
        elif character == "{":
            self.depth += 1
        elif self.depth:
            if character == "}":
                self.depth -= 1
            elif character == '"':
                self.in_string = True


class ObjectScanner:
    """Finds the first object in a text: what stands before its brace, and where it ends."""

    def __init__(self) -> None:
        self._parts: list[str] = []
        self._braces = Braces()
        self.num_characters = 0
        """Read so far."""
        self.start: int | None = None
        """Where the object begins, once it has."""

    @property
    def text(self) -> str:
        """All that was read, up to the object's end."""
        return "".join(self._parts)

    def feed(self, text: str) -> int | None:
        """The position in this text after the object's end, if it ends here."""
        end = self._end(text)
        self._parts.append(text[:end])
        self.num_characters += len(self._parts[-1])
        return end

    def _end(self, text: str) -> int | None:
        braces = self._braces
        for position, character in enumerate(text):
            braces.step(character)
            if self.start is None:
                if braces.depth:
                    self.start = self.num_characters + position
            elif not braces.depth:
                return position + 1
        return None


class ObjectStream:
    """Passes on the first object in a text while it is written.

    Line breaks and other control characters in its strings are escaped, as JSON wants them. What is passed on is the
    beginning of an object if the whole turns out to be one.
    """

    def __init__(self) -> None:
        self._braces = Braces()
        self._begun = False
        self._over = False

    def feed(self, text: str) -> str:
        """Nothing before the object, and nothing after it."""
        passed = []
        for character in text:
            if self._over:
                break
            escaped = self._braces.in_string and character < " "
            self._braces.step(character)
            self._begun = self._begun or self._braces.depth > 0
            if self._begun:
                passed.append(f"\\u{ord(character):04x}" if escaped else character)
                self._over = not self._braces.depth
        return "".join(passed)


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
