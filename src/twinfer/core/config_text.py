"""From a configuration's text and overrides to the frozen tree, with errors that name the key and suggest another."""

import difflib
import re
import tomllib
import typing
from collections.abc import Sequence
from typing import Any

import msgspec

from twinfer.core.config import Config
from twinfer.core.errors import ConfigError


def parse_config(text: str = "", overrides: Sequence[str] = ()) -> Config:
    """The configuration that a TOML text and ``a.b=c`` overrides make of the defaults.

    In an override, a table of an array is named by its ``name`` or ``id``, or by its index: ``pool.decode.kv_mib=256``.
    The value is read as TOML; what is no TOML value is a string.

    Raises:
        ConfigError: not TOML, an unknown key, or a value of the wrong type.
    """
    try:
        given = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"the configuration is not TOML: {error}") from error
    _check_keys(given, Config, "")
    tree: dict[str, Any] = msgspec.to_builtins(Config()) | given
    for override in overrides:
        _apply(tree, override)
    _check_keys(tree, Config, "")
    try:
        return msgspec.convert(tree, Config)
    except msgspec.ValidationError as error:
        raise ConfigError(_readable(str(error))) from error


def dump_config(config: Config) -> str:
    """The effective configuration as TOML, every default written out."""
    tree = msgspec.to_builtins(config)
    lines: list[str] = [f"{key} = {_toml(value)}" for key, value in tree.items() if not _is_table(value)]
    for key, value in tree.items():
        if isinstance(value, dict):
            lines += _dump_table(f"[{key}]", key, value)
        elif _is_table(value):
            for item in value:
                lines += _dump_table(f"[[{key}]]", key, item)
    return "\n".join(lines) + "\n"


def _dump_table(head: str, path: str, table: dict[str, Any]) -> list[str]:
    lines = ["", head]
    lines += [f"{key} = {_toml(value)}" for key, value in table.items() if not isinstance(value, dict)]
    for key, value in table.items():
        if isinstance(value, dict):
            lines += _dump_table(f"[{path}.{key}]", f"{path}.{key}", value)
    return lines


def _is_table(value: object) -> bool:
    return isinstance(value, dict) or (isinstance(value, list | tuple) and bool(value) and isinstance(value[0], dict))


def _toml(value: object) -> str:
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_toml(item) for item in value) + "]"
    return msgspec.json.encode(value).decode()


def _apply(tree: dict[str, Any], override: str) -> None:
    path, separator, text = override.partition("=")
    if not separator or not path:
        raise ConfigError(f"--set {override!r} has no value; write it as --set gateway.port=9000")
    *parents, last = path.strip().split(".")
    node: Any = tree
    for step in parents:
        node = _descend(node, step, path)
    if isinstance(node, list | tuple):
        raise ConfigError(f"--set {path}: this is a list of tables; name one of them, such as pool.decode.kv_mib")
    if not isinstance(node, dict):
        raise ConfigError(f"--set {path}: nothing lies below {parents[-1]!r}")
    node[last] = _value(text.strip())


def _descend(node: Any, step: str, path: str) -> Any:
    if isinstance(node, dict):
        return node.setdefault(step, {})
    if not isinstance(node, list | tuple):
        raise ConfigError(f"--set {path}: nothing lies below {step!r}")
    for index, table in enumerate(node):
        if step in (table.get("name"), table.get("id"), str(index)):
            return table
    known = [table.get("id") or table.get("name") for table in node]
    raise ConfigError(f"--set {path}: there is no {step!r}; known are {', '.join(map(str, known))}")


def _value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _check_keys(table: dict[str, Any], kind: type[msgspec.Struct], path: str) -> None:
    hints = typing.get_type_hints(kind)
    for key, value in table.items():
        if key not in hints:
            near = difflib.get_close_matches(key, hints, 1)
            advice = f"did you mean {near[0]!r}?" if near else f"known keys: {', '.join(hints)}"
            raise ConfigError(f"unknown key {path + key!r} in the configuration; {advice}")
        nested = _struct_in(hints[key])
        if nested is None:
            continue
        for item in value if isinstance(value, list | tuple) else [value]:
            if isinstance(item, dict):
                _check_keys(item, nested, f"{path}{key}.")


def _struct_in(hint: Any) -> type[msgspec.Struct] | None:
    for candidate in (hint, *typing.get_args(hint)):
        if isinstance(candidate, type) and issubclass(candidate, msgspec.Struct):
            return candidate
    return None


def _readable(message: str) -> str:
    match = re.fullmatch(r"(.*) - at `\$\.?(.*)`", message)
    return f"configuration key {match[2]!r}: {match[1]}" if match else f"the configuration: {message}"
