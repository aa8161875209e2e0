"""The part of JSON Schema (draft 2020-12) that answers can be held to: Bedrock's, so that one schema serves both.

What is not of it is refused by name and place, before anything is computed: an answer that merely looks as if it had
been held to a ``minimum`` would be worse than none. Words that only describe are left out of what is returned.
"""

from collections.abc import Callable, Mapping
from typing import Any

from twinfer.core.errors import InvalidRequest

Schema = Mapping[str, Any]
TYPES = ("object", "array", "string", "integer", "number", "boolean", "null")
FORMATS = ("date-time", "time", "date", "duration", "email", "hostname", "uri", "ipv4", "ipv6", "uuid")
DESCRIPTIONS = (
    "title", "description", "default", "examples", "deprecated", "readOnly", "writeOnly", "$comment", "$schema", "$id",
)  # fmt: skip
MAX_DEPTH = 32
MAX_NODES = 5_000
"""Schemas in a schema."""
_YEAR = "([1-9][0-9]{3}|0[1-9][0-9]{2}|00[1-9][0-9]|000[1-9])"
_LEAP = "[0-9]{2}(0[48]|[2468][048]|[13579][26])|(0[48]|[2468][048]|[13579][26])00"
_REAL_DAY = f"^({_YEAR}-(0[13-9]|1[0-2]|02-([01]|2[0-8]))|({_LEAP})-02-29)"
"""How dates begin that exist; llguidance lets 29 February pass in every year, and knows a year 0."""
_DEFINITIONS = ("$defs", "definitions")


def check_schema(schema: object, where: str) -> dict[str, Any]:
    """The same schema as llguidance is to have it: without words that only describe, and with objects closed.

    Args:
        schema: as the client wrote it.
        where: its place in the request, for complaints.

    Raises:
        InvalidRequest: it is not of the supported part of JSON Schema.
    """
    return _Checker(schema, where).root()


class _Checker:
    """Walks through one schema."""

    def __init__(self, schema: object, where: str) -> None:
        self._schema = schema
        self._where = where
        self._num_nodes = 0
        self._refers: dict[str, set[str]] = {}
        self._defined = ""
        """Pointer of the definition that is being read."""
        self._definable: list[str] = []
        self._readers: Mapping[str, Callable[[Any, str, int], Any]] = {
            "type": self._type,
            "enum": self._enum,
            "const": self._const,
            "anyOf": self._branches,
            "allOf": self._all_of,
            "$ref": self._reference,
            "properties": self._properties,
            "required": self._required,
            "additionalProperties": self._additional,
            "items": self._items,
            "minItems": self._min_items,
            "format": self._format,
        }

    def root(self) -> dict[str, Any]:
        """The whole schema."""
        if not isinstance(self._schema, dict):
            raise self._complaint("#", "a schema must be a JSON object")
        self._definable = [
            f"#/{name}/{_escaped(key)}"
            for name in _DEFINITIONS
            if name in self._schema
            for key in self._object(self._schema[name], f"#/{name}")
        ]
        definitions = {name: self._definitions(name) for name in _DEFINITIONS if name in self._schema}
        self._defined = ""
        found = self._node({k: v for k, v in self._schema.items() if k not in _DEFINITIONS}, "#", 0)
        settled: set[str] = set()
        for pointer in self._refers:
            self._follow(pointer, (), settled)
        return {**found, **definitions}

    def _definitions(self, name: str) -> dict[str, Any]:
        found = {}
        for key, value in self._object(self._schema[name], f"#/{name}").items():  # type: ignore[index]
            self._defined = f"#/{name}/{_escaped(key)}"
            self._refers.setdefault(self._defined, set())
            found[key] = self._node(value, self._defined, 1)
        return found

    def _node(self, schema: object, at: str, depth: int, *, closed: bool = True) -> dict[str, Any]:
        self._num_nodes += 1
        if depth > MAX_DEPTH or self._num_nodes > MAX_NODES:
            raise self._complaint(at, f"schemas may be nested {MAX_DEPTH} deep and have {MAX_NODES} parts at most")
        found = {}
        for keyword, value in self._object(schema, at).items():
            if keyword in DESCRIPTIONS:
                continue
            if keyword not in self._readers:
                raise self._complaint(at, f"the keyword {keyword[:100]!r} is not supported; leave it out")
            found[keyword] = self._readers[keyword](value, f"{at}/{_escaped(keyword)}", depth)
        if closed and "properties" in found and "allOf" not in found:
            found["additionalProperties"] = False
        if found.get("format") in ("date", "date-time"):
            found["pattern"] = _REAL_DAY
        return found

    def _type(self, value: object, at: str, depth: int) -> object:
        names = value if isinstance(value, list) else [value]
        if not names or any(name not in TYPES for name in names):
            raise self._complaint(at, f"a type must be one of {', '.join(TYPES)}")
        return value

    def _enum(self, value: object, at: str, depth: int) -> object:
        if not isinstance(value, list) or not value or any(isinstance(member, dict | list) for member in value):
            raise self._complaint(at, "an enum must list strings, numbers, booleans or nulls")
        return value

    def _const(self, value: object, at: str, depth: int) -> object:
        return value

    def _branches(self, value: object, at: str, depth: int) -> list[dict[str, Any]]:
        return [self._node(branch, f"{at}/{i}", depth + 1) for i, branch in enumerate(self._list(value, at))]

    def _all_of(self, value: object, at: str, depth: int) -> list[dict[str, Any]]:
        branches = enumerate(self._list(value, at))
        return [self._node(branch, f"{at}/{i}", depth + 1, closed=False) for i, branch in branches]

    def _reference(self, value: object, at: str, depth: int) -> object:
        if value not in self._definable:
            raise self._complaint(at, "a reference must be to a member of the schema's own $defs or definitions")
        self._refers.setdefault(self._defined, set()).add(str(value))
        return value

    def _properties(self, value: object, at: str, depth: int) -> dict[str, Any]:
        members = self._object(value, at).items()
        return {name: self._node(member, f"{at}/{_escaped(name)}", depth + 1) for name, member in members}

    def _required(self, value: object, at: str, depth: int) -> object:
        if not isinstance(value, list) or any(not isinstance(name, str) for name in value):
            raise self._complaint(at, "required must list names")
        return value

    def _additional(self, value: object, at: str, depth: int) -> object:
        if value is not False:
            raise self._complaint(at, "additionalProperties may only be false")
        return value

    def _items(self, value: object, at: str, depth: int) -> dict[str, Any]:
        return self._node(value, at, depth + 1)

    def _min_items(self, value: object, at: str, depth: int) -> object:
        if value not in (0, 1) or isinstance(value, bool):
            raise self._complaint(at, "minItems may only be 0 or 1")
        return value

    def _format(self, value: object, at: str, depth: int) -> object:
        if value not in FORMATS:
            raise self._complaint(at, f"a format must be one of {', '.join(FORMATS)}")
        return value

    def _follow(self, pointer: str, path: tuple[str, ...], settled: set[str]) -> None:
        """See that no way from here leads back. References are a chain only as long as schemas may be deep."""
        if pointer in path:
            raise self._complaint(pointer, "a schema must not refer to itself")
        if len(path) > MAX_DEPTH:
            raise self._complaint(pointer, f"references may lead to references {MAX_DEPTH} times at most")
        if pointer not in settled:
            for other in self._refers.get(pointer, ()):
                self._follow(other, (*path, pointer), settled)
            settled.add(pointer)

    def _object(self, value: object, at: str) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise self._complaint(at, "a JSON object is expected here")
        return value

    def _list(self, value: object, at: str) -> list[Any]:
        if not isinstance(value, list) or not value:
            raise self._complaint(at, "a list of schemas is expected here")
        return value

    def _complaint(self, at: str, rule: str) -> InvalidRequest:
        return InvalidRequest(f"The schema at {self._where} cannot be used: at {at[:300]}: {rule}.", where=self._where)


def _escaped(name: str) -> str:
    return name.replace("~", "~0").replace("/", "~1")
