from collections.abc import Callable
from typing import Any

import pytest

from twinfer.core.errors import InvalidRequest
from twinfer.gateway.dialects.reader import Reader, read_json


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'"x"',
        b"{}{}",
        b"\xff",
        b'{"a": "\\ud800"}',
        b'{"a": NaN}',
        b"[" * 100_000,
        b"1" * 5000,
    ],
)
def test_what_is_no_json_object_is_refused(body: bytes) -> None:
    """Whatever is wrong with it, it is one error; nothing overflows."""
    with pytest.raises(InvalidRequest, match="Malformed input request"):
        read_json(body)


def test_null_is_absent() -> None:
    """Clients write out what they do not set."""
    fields = read_json(b'{"a": null, "b": {"c": 1}}')
    assert fields.get("a") is None
    assert [(name, member.value) for name, member in fields.members()] == [("b", {"c": 1})]
    assert fields.need("b").need("c").path == "b.c"


@pytest.mark.parametrize(
    ("value", "read", "rule"),
    [
        (
            1.5,
            lambda r: r.number(0, 1),
            "Value '1.5' at 'x' failed to satisfy constraint: Member must have value less than or equal to 1",
        ),
        (-1, lambda r: r.number(0, 1), "greater than or equal to 0"),
        (True, lambda r: r.number(0, 1), "must be a number"),
        (1.0, lambda r: r.integer(), "must be an integer"),
        (10**30, lambda r: r.integer(), "less than or equal to"),
        (10**400, lambda r: r.number(0, 1), "less than or equal to 1"),
        (False, lambda r: r.integer(), "must be an integer"),
        (1, lambda r: r.boolean(), "must be a boolean"),
        (1, lambda r: r.string(), "must be a string"),
        ("", lambda r: r.string(at_least=1), "length greater than or equal to 1"),
        ("abc", lambda r: r.string(at_most=2), "length less than or equal to 2"),
        ("a!", lambda r: r.string(pattern="[a-z]*"), "regular expression pattern"),
        ("z", lambda r: r.one_of(("a", "b")), r"enum value set: \[a, b\]"),
        ({}, lambda r: r.one_of(("a", "b")), "Value '{...}' at"),
        ({}, lambda r: r.items(), "must be a list"),
        ([1, 2], lambda r: r.items(at_most=1), "length less than or equal to 1"),
        ([], lambda r: r.get("y"), "must be an object"),
        ({}, lambda r: r.need("y"), "Value at 'x.y' failed to satisfy constraint: Member must not be null"),
        ([[1]], lambda r: r.items()[0].items()[0].string(), "Value '1' at 'x.0.0'"),
        ("v" * 1000, lambda r: r.integer(), "Value 'v{100}...' at"),
    ],
)
def test_complaints_name_value_place_and_rule(value: Any, read: Callable[[Reader], object], rule: str) -> None:
    """In AWS's words, and short whatever the value."""
    with pytest.raises(InvalidRequest, match=rule) as caught:
        read(Reader(value, "x"))
    assert caught.value.where is not None
    assert caught.value.where.startswith("x")
    assert len(str(caught.value)) < 300


def test_what_is_right_is_returned() -> None:
    """Bounds are inclusive."""
    assert (
        Reader(1, "x").number(0, 1),
        Reader(0, "x").integer(at_least=0),
        Reader("ab", "x").string(2, 2, "[ab]+"),
        [item.value for item in Reader([1], "x").items(1, 1)],
    ) == (1.0, 0, "ab", [1])
