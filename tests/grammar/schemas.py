"""Random schemas of the supported part of JSON Schema, and answers as a client reads them."""

import json
from random import Random
from typing import Any

import jsonschema

from twinfer.gateway.text.schema import FORMATS

CHECKER = jsonschema.FormatChecker(formats=("date", "ipv4", "ipv6", "uuid"))
"""Formats of which the standard library knows what is right."""
_WORDS = ("name", "age", "unit", "city", "ok", "kind", "tags", "a b", "ü", "x/y~z", "id", "when")


def random_schema(rng: Random) -> dict[str, Any]:
    """An object of a few members, with definitions that it may refer to."""
    definitions = {name: _schema(rng, 2, ()) for name in rng.sample(("point", "a/b", "c~d"), rng.randrange(3))}
    schema = _object(rng, 3, tuple(definitions))
    if definitions:
        schema["$defs"] = definitions
    if rng.random() < 0.3:
        schema |= {
            "title": "T",
            "description": "What is wanted.",
            "$schema": "https://json-schema.org/draft/2020-12/schema",
        }
    return schema


def complaint(schema: Any, text: str) -> str | None:
    """Why a text is no answer to a schema."""
    try:
        value = json.loads(text)
        jsonschema.Draft202012Validator(schema, format_checker=CHECKER).validate(value)
    except (ValueError, jsonschema.ValidationError) as error:
        return f"{type(error).__name__}: {str(error).splitlines()[0]}"
    return None


def _schema(rng: Random, depth: int, names: tuple[str, ...]) -> dict[str, Any]:
    makers = [_scalar, _text, _choice, _constant]
    if depth:
        makers += [_object, _array, _any_of, _all_of]
    if names:
        makers.append(_reference)
    return rng.choice(makers)(rng, depth, names)


def _object(rng: Random, depth: int, names: tuple[str, ...]) -> dict[str, Any]:
    members = rng.sample(_WORDS, rng.randrange(4))
    schema: dict[str, Any] = {
        "type": "object",
        "properties": {name: _schema(rng, depth - 1, names) for name in members},
        "required": [name for name in members if rng.random() < 0.7],
    }
    if rng.random() < 0.7:
        schema["additionalProperties"] = False
    return schema


def _array(rng: Random, depth: int, names: tuple[str, ...]) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "array", "items": _schema(rng, depth - 1, names)}
    return schema | ({"minItems": rng.randrange(2)} if rng.random() < 0.5 else {})


def _any_of(rng: Random, depth: int, names: tuple[str, ...]) -> dict[str, Any]:
    return {"anyOf": [_schema(rng, depth - 1, names) for _ in range(rng.randrange(1, 4))]}


def _all_of(rng: Random, depth: int, names: tuple[str, ...]) -> dict[str, Any]:
    """Parts of one object that say nothing of each other's members."""
    members = rng.sample(_WORDS, 2)
    return {
        "allOf": [
            {"type": "object", "properties": {name: _schema(rng, 0, names)}, "required": [name]} for name in members
        ]
    }


def _scalar(rng: Random, depth: int, names: tuple[str, ...]) -> dict[str, Any]:
    kinds = ("string", "integer", "number", "boolean", "null")
    return {"type": rng.choice(kinds) if rng.random() < 0.8 else rng.sample(kinds, 2)}


def _text(rng: Random, depth: int, names: tuple[str, ...]) -> dict[str, Any]:
    return {"type": "string", "format": rng.choice(FORMATS), "description": "A text."}


def _choice(rng: Random, depth: int, names: tuple[str, ...]) -> dict[str, Any]:
    return {"enum": rng.sample(["red", "dark green", 'q"uote', "naïve", 1, -2.5, True, None], rng.randrange(1, 5))}


def _constant(rng: Random, depth: int, names: tuple[str, ...]) -> dict[str, Any]:
    return {"const": rng.choice(["fixed", 42, False, None, {"a": [1, {"b": "c"}]}, []])}


def _reference(rng: Random, depth: int, names: tuple[str, ...]) -> dict[str, Any]:
    return {"$ref": "#/$defs/" + rng.choice(names).replace("~", "~0").replace("/", "~1")}
