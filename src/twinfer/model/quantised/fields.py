"""Look-ups in a ``quantization_config``."""

from typing import TypeVar

from twinfer.core.errors import CheckpointError
from twinfer.model.fields import Fields

Value = TypeVar("Value", int, str)


def choice(fields: Fields, name: str, supported: tuple[Value, ...], default: Value | None = None) -> Value:
    """A field that must hold one of ``supported``.

    Raises:
        CheckpointError: it holds something else, or nothing and there is no default.
    """
    found = fields.get(name)
    if found is None and default is not None:
        return default
    for value in supported:
        if type(found) is type(value) and found == value:
            return value
    listed = ", ".join(map(repr, supported))
    raise CheckpointError(f"{fields.where}: {name} {found!r} is not supported, only {listed}")


def group_size(fields: Fields, name: str, default: int | None = None) -> int:
    """Inputs that share a scale: 0 for all, which files write as -1."""
    return 0 if fields.get(name) == -1 else fields.integer(name, default)
