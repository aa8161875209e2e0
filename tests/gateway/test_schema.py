from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.grammar.schemas import complaint, random_schema
from tests.grammar.walk import Walker
from twinfer.core.errors import InvalidRequest
from twinfer.gateway.text.grammar_text import json_grammar
from twinfer.gateway.text.schema import MAX_DEPTH, check_schema
from twinfer.grammar.token_table import read_token_table
from twinfer.model.checkpoint import locate

TABLE = read_token_table(locate("demo") / "tokenizer.json", 4096)
WALKER = Walker(TABLE, 1)
INTEGER = {"type": "integer"}


def properties(**members: Any) -> dict[str, Any]:
    """An object."""
    return {"type": "object", "properties": members}


def refers(name: str, **definitions: Any) -> dict[str, Any]:
    """A schema that refers to one of its definitions."""
    return {"$ref": f"#/$defs/{name}", "$defs": definitions}


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 2**32))
def test_whatever_a_schema_permits_is_right(seed: int) -> None:
    """By another implementation of JSON Schema, whichever tokens are drawn."""
    rng = Random(seed)
    schema = random_schema(rng)
    drawn = WALKER.answer(json_grammar(check_schema(schema, "here")), rng)
    assert drawn is None or complaint(schema, b"".join(TABLE.tokens[token] for token in drawn).decode()) is None


@pytest.mark.parametrize(
    ("schema", "at", "rule"),
    [
        *[
            (properties(a={keyword: 1}), "#/properties/a", f"the keyword '{keyword}' is not supported")
            for keyword in (
                *("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf", "minLength", "maxLength"),
                *(
                    "pattern",
                    "maxItems",
                    "uniqueItems",
                    "prefixItems",
                    "contains",
                    "oneOf",
                    "not",
                    "if",
                    "then",
                    "else",
                ),
                *("patternProperties", "propertyNames", "minProperties", "maxProperties", "dependentRequired"),
                *("unevaluatedProperties", "$dynamicRef", "$anchor", "$defs", "x-guidance", "contentEncoding"),
            )
        ],
        (properties(**{"a/b~": {"minimum": 1}}), "#/properties/a~1b~0", "'minimum'"),
        ([], "#", "must be a JSON object"),
        (True, "#", "must be a JSON object"),
        (properties(a=True), "#/properties/a", "a JSON object is expected"),
        ({"type": "text"}, "#/type", "must be one of object, array"),
        ({"type": []}, "#/type", "must be one of"),
        ({"type": "object", "additionalProperties": True}, "#/additionalProperties", "may only be false"),
        ({"type": "object", "additionalProperties": {}}, "#/additionalProperties", "may only be false"),
        ({"type": "array", "minItems": 2}, "#/minItems", "0 or 1"),
        ({"type": "array", "minItems": True}, "#/minItems", "0 or 1"),
        ({"type": "array", "items": [INTEGER]}, "#/items", "a JSON object is expected"),
        ({"type": "string", "format": "regex"}, "#/format", "must be one of date-time"),
        ({"enum": [{}]}, "#/enum", "must list strings"),
        ({"enum": []}, "#/enum", "must list strings"),
        ({"anyOf": []}, "#/anyOf", "a list of schemas"),
        ({"anyOf": [INTEGER, {"oneOf": []}]}, "#/anyOf/1", "'oneOf'"),
        ({"required": "a"}, "#/required", "must list names"),
        ({"$ref": "#"}, "#/$ref", "the schema's own $defs"),
        ({"$ref": "https://example.com/schema"}, "#/$ref", "the schema's own $defs"),
        (refers("b", a=INTEGER), "#/$ref", "the schema's own $defs"),
        (refers("a", a=properties(next={"$ref": "#/$defs/a"})), "#/$defs/a", "refer to itself"),
        (refers("a", a={"$ref": "#/$defs/b"}, b={"anyOf": [{"$ref": "#/$defs/a"}]}), "#/$defs/", "refer to itself"),
        ({"$defs": {"a": {"minimum": 1}}}, "#/$defs/a", "'minimum'"),
        ({"definitions": []}, "#/definitions", "a JSON object is expected"),
    ],
)
def test_what_is_not_supported_is_named(schema: Any, at: str, rule: str) -> None:
    """By its keyword and its place in the schema, and by the schema's place in the request."""
    with pytest.raises(InvalidRequest) as refused:
        check_schema(schema, "the.request")
    assert "the.request" == refused.value.where
    assert str(refused.value).startswith(f"The schema at the.request cannot be used: at {at}")
    assert rule in str(refused.value)


def test_too_much() -> None:
    """Depth, the number of parts, and chains of references are bounded."""
    deep: dict[str, Any] = INTEGER
    for _ in range(MAX_DEPTH + 1):
        deep = {"type": "array", "items": deep}
    chain = {f"n{i}": {"$ref": f"#/$defs/n{i + 1}"} for i in range(60)} | {"n60": INTEGER}
    for schema in (deep, {"anyOf": [INTEGER] * 6000}, refers("n0", **chain)):
        with pytest.raises(InvalidRequest, match="at most"):
            check_schema(schema, "here")


def test_many_ways_to_one_definition_are_followed_once() -> None:
    """A lattice of references has more ways through it than anybody could walk."""
    lattice = {f"n{i}": properties(a={"$ref": f"#/$defs/n{i + 1}"}, b={"$ref": f"#/$defs/n{i + 1}"}) for i in range(25)}
    assert "$defs" in check_schema(refers("n0", **lattice, n25=INTEGER), "here")


def test_what_is_left_of_a_schema() -> None:
    """Descriptions go, objects are closed, but not the parts of one object."""
    schema = properties(a={"type": "integer", "title": "A", "default": 3}, b={"allOf": [properties(c=INTEGER)]})
    assert {
        "type": "object",
        "properties": {"a": INTEGER, "b": {"allOf": [properties(c=INTEGER)]}},
        "additionalProperties": False,
    } == check_schema({**schema, "$schema": "https://json-schema.org/draft/2020-12/schema"}, "here")


@pytest.mark.parametrize(
    ("day", "exists"),
    [("2024-02-29", True), ("2023-02-29", False), ("1900-02-29", False), ("2000-02-29", True), ("0000-01-01", False)],
)
@pytest.mark.parametrize(("kind", "rest"), [("date", ""), ("date-time", "T10:00:00Z")])
def test_days_that_do_not_exist(kind: str, rest: str, day: str, exists: bool) -> None:
    """Are not permitted, with or without a time."""
    matcher = WALKER.vocabulary.matcher(json_grammar(check_schema({"type": "string", "format": kind}, "here")))
    written = [TABLE.tokens.index(character.encode()) for character in f'"{day}{rest}"']
    assert exists == (matcher.try_consume_tokens(written) == len(written))
