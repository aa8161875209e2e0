"""Look-ups in a configuration file that name the field which is missing or of the wrong kind."""

from collections.abc import Mapping
from typing import Any

from twinfer.core.errors import CheckpointError


class Fields:
    """A JSON object of a configuration. ``null`` counts as absent.

    Args:
        values: the object.
        where: its name in error messages.
    """

    def __init__(self, values: Mapping[str, Any], where: str) -> None:
        self._values = values
        self.where = where

    def __contains__(self, name: str) -> bool:
        return name in self._values

    def __bool__(self) -> bool:
        return bool(self._values)

    def get(self, name: str) -> Any:
        """What the field holds, whatever it is."""
        return self._values.get(name)

    def integer(self, name: str, default: int | None = None, minimum: int = 1) -> int:
        """A whole number."""
        value = self._present(name, default)
        if not isinstance(value, int) or isinstance(value, bool) or value < minimum:
            raise CheckpointError(f"{self.where}: {name} must be an integer of at least {minimum}, not {value!r}")
        return value

    def number(self, name: str, default: float | None = None) -> float:
        """A positive number."""
        value = self._present(name, default)
        if not isinstance(value, int | float) or isinstance(value, bool) or value <= 0:
            raise CheckpointError(f"{self.where}: {name} must be a positive number, not {value!r}")
        return float(value)

    def switchable(self, name: str, default: float) -> float:
        """A positive number, or 0 where the file switches it off with ``null``, or is silent and so is the default."""
        return self.number(name, default) if self.switched_on(name, default) else 0.0

    def switched_on(self, name: str, default: float) -> bool:
        """Whether the field, or without it the default, is something other than ``null`` or 0."""
        return self._values[name] is not None if name in self._values else bool(default)

    def flag(self, name: str, default: bool = False) -> bool:
        """True or false."""
        value = self._present(name, default)
        if not isinstance(value, bool):
            raise CheckpointError(f"{self.where}: {name} must be true or false, not {value!r}")
        return value

    def numbers(self, name: str, count: int) -> tuple[float, ...]:
        """A list of that many positive numbers."""
        value = self._present(name, None)
        fits = isinstance(value, list) and len(value) == count
        if not fits or not all(isinstance(x, int | float) and not isinstance(x, bool) and x > 0 for x in value):
            raise CheckpointError(f"{self.where}: {name} must list {count} positive numbers")
        return tuple(float(x) for x in value)

    def table(self, name: str) -> "Fields":
        """An object; an empty one where it is absent."""
        value = self.get(name) or {}
        if not isinstance(value, dict):
            raise CheckpointError(f"{self.where}: {name} must be an object, not {value!r}")
        return Fields(value, f"{self.where}: {name}")

    def tables(self) -> list[str]:
        """Names of the fields that hold objects."""
        return [name for name, value in self._values.items() if isinstance(value, dict)]

    def _present(self, name: str, default: Any) -> Any:
        value = self._values.get(name)
        value = default if value is None else value
        if value is None:
            raise CheckpointError(f"{self.where}: {name} is missing")
        return value
