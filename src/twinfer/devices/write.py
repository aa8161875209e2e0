"""Writes an entry as a file of the catalogue."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from twinfer.devices.catalogue import read_entry
from twinfer.devices.profile import Entry


def dump_entry(entry: Entry) -> str:
    """An entry as TOML, which reads back as the same."""
    tree = {key: value for key, value in msgspec.to_builtins(entry).items() if value not in (None, [], ())}
    tables = {key: value for key, value in tree.items() if isinstance(value, Mapping)}
    arrays = {key: value for key, value in tree.items() if isinstance(value, list | tuple) and key != "doubts"}
    plain = {key: value for key, value in tree.items() if key not in tables and key not in arrays}
    parts = [_lines(plain)]
    for key, table in tables.items():
        parts.append(f"[{key}]\n{_lines(table)}")
    for key, array in arrays.items():
        parts += [f"[[{key}]]\n{_lines(table)}" for table in array]
    return "\n".join(parts)


def write_entry(entry: Entry, directory: Path) -> Path:
    """Put an entry into a directory of the catalogue, in place of an older one; returns where it is."""
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / f"{entry.name}.toml"
    path.write_text(dump_entry(entry), encoding="utf-8")
    read_entry(path)
    return path


def _lines(table: Mapping[str, Any]) -> str:
    """Keys and values; JSON's texts, numbers and arrays of texts are TOML's as well."""
    return "".join(f"{key} = {json.dumps(value, ensure_ascii=False)}\n" for key, value in table.items())
