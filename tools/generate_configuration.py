"""Write docs/configuration.md from the tables, defaults and docstrings of src/twinfer/core/config.py.

python tools/generate_configuration.py
"""

import ast
import enum
import inspect
import sys
import types
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from twinfer.core import config
from twinfer.core.config import Config
from twinfer.core.config_text import dump_config

PAGE = Path(__file__).parents[1] / "docs" / "configuration.md"
_WORDS = {str: "text", int: "integer", float: "number", bool: "true or false"}

HEAD = """\
# Configuration

<!-- Made by tools/generate_configuration.py from src/twinfer/core/config.py; edit that file instead. -->

One TOML file is the whole topology: `twinfer serve --config twinfer.toml`. A file holds only what differs from the
defaults; if it has a `[[model]]` or a `[[pool]]`, those replace the default ones. An unknown key is an error that
suggests the nearest name. `--set a.b=c` overrides one key and may be repeated; a table of an array is named by its
`name`, its `id` or its number, as in `--set pool.decode.kv_mib=256`. The effective configuration is printed at start.

Four environment variables are read: `TWINFER_CACHE` (see `cache_dir`), `TWINFER_CLUSTER_KEY` (at least 32 hexadecimal
digits, the same for gateway and workers; `twinfer serve` draws a key of its own when it is not set),
`TWINFER_DATABASE_URL` and `TWINFER_DATABASE_KEY` (see `[identity]`).
"""


def page() -> str:
    """The whole page."""
    documented = _docstrings()
    parts = [HEAD, *_table("", Config, documented)]
    parts += ["## The default configuration in full\n", f"```toml\n{dump_config(Config()).strip()}\n```\n"]
    return "\n".join(parts)


def _table(path: str, kind: type[msgspec.Struct], documented: dict[tuple[str, str], str]) -> Iterator[str]:
    """The section of one table, then those of the tables in it."""
    fields = msgspec.structs.fields(kind)
    plain = [field for field in fields if _struct_in(field.type) is None]
    if plain:
        yield f"## `{path}`\n\n{inspect.getdoc(kind)}\n" if path else "## Top level\n"
        rows = [_row(field, documented.get((kind.__name__, field.name), "")) for field in plain]
        yield "\n".join(["| key | value | default | meaning |", "|---|---|---|---|", *rows, ""])
    for field in fields:
        nested = _struct_in(field.type)
        if nested is not None:
            name = f"{path.strip('[]')}.{field.name}".lstrip(".")
            yield from _table(f"[{name}]" if nested is field.type else f"[[{name}]]", nested, documented)


def _row(field: msgspec.structs.FieldInfo, text: str) -> str:
    default = "required" if field.required else f"`{msgspec.json.encode(field.default).decode()}`"
    cells = (f"`{field.name}`", _in_words(field.type), default, " ".join(text.split()).replace("``", "`"))
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _in_words(kind: Any) -> str:
    """A type as somebody who writes TOML thinks of it."""
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        return ", ".join(f"`{member.value}`" for member in kind)
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is typing.Literal:
        return ", ".join(f"`{word}`" for word in arguments)
    if origin is tuple:
        return f"list of {_in_words(arguments[0])}"
    if origin in (typing.Union, types.UnionType):
        return ", ".join(_in_words(argument) for argument in arguments)
    return _WORDS[kind]


def _struct_in(kind: Any) -> type[msgspec.Struct] | None:
    """The table that a field holds, alone or in an array."""
    for candidate in (kind, *typing.get_args(kind)):
        if isinstance(candidate, type) and issubclass(candidate, msgspec.Struct):
            return candidate
    return None


def _docstrings() -> dict[tuple[str, str], str]:
    """What stands below each field, by class and field."""
    found: dict[tuple[str, str], str] = {}
    for node in ast.parse(inspect.getsource(config)).body:
        if not isinstance(node, ast.ClassDef):
            continue
        for field, below in zip(node.body, node.body[1:], strict=False):
            if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and _is_text(below):
                found[node.name, field.target.id] = ast.literal_eval(below.value)
    return found


def _is_text(node: ast.stmt) -> typing.TypeGuard[ast.Expr]:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def main() -> int:
    """Write the page."""
    PAGE.write_text(page(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
