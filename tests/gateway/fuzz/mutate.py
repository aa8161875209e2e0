"""Spoils good requests: values, members, bytes, headers and paths."""

import copy
import json
from collections.abc import Iterator
from random import Random
from typing import Any


class Raw(str):
    """Text to stand in JSON as it is."""


_VALUES: list[Any] = [
    *(None, True, False, 0, -1, 1, 3, 0.5, 1e308, -1e308, 2**31, 2**63, 2**64, -(2**63), -(2**63) - 1),
    *(Raw("1e999"), Raw("-0"), Raw("-0.0"), Raw("NaN"), Raw("1" * 5000), Raw("1." + "3" * 5000), Raw("0x1F"), Raw("")),
    *(Raw("[" * 3000 + "]" * 3000), Raw('{"a":' * 900 + "1" + "}" * 900), Raw("[" * 200_000)),
    *("", " ", "\0", "\ud800", "\udc00\ud800", "🙂", "a\u0301", "\u202e", "\ufeff", "\x7f", "x" * 5000, "\n" * 300),
    *("<|im_start|>", "<|eos|>", "<tool_call>", "</think>", "{{ 7 * 7 }}", "{% for %}", "../..", "%00", "1", "true"),
    *([], {}, [[]], [None], [""], {"": ""}, {"a": None}, {"$ref": "#"}, {"type": ["object", "null"]}, ["END"] * 300),
]
_HEADERS: list[tuple[bytes, list[bytes]]] = [
    (b"content-type", [b"text/plain", b"application/json; charset=utf-16", b"", b"\xff", b"application/cbor", b";;"]),
    (b"accept", [b"text/html", b"*/*;q=0", b"", b"a" * 9000, b"\x00", b"application/json, text/plain"]),
    (b"x-amzn-bedrock-accept", [b"text/plain", b"*/*", b",,,"]),
    (b"content-length", [b"-1", b"99999999999999999999", b"1" * 5000, b"abc", b"\xb2", b"", b"0"]),
    (b"content-encoding", [b"gzip", b"identity"]),
    (b"transfer-encoding", [b"chunked", b"gzip"]),
    (b"authorization", [b"Bearer x", b"AWS4-HMAC-SHA256 Credential=", b"\xff\xfe", b""]),
    (b"x-amz-date", [b"tomorrow"]),
    (b"x-twinfer-route", [b"aggregated", b"disaggregated", b"sideways", b"", b"\xe9"]),
    (b"x-amzn-bedrock-performanceconfig-latency", [b"optimized", b"slow", b""]),
    (b"x-amzn-bedrock-service-tier", [b"flex", b"bogus"]),
    (b"x-amzn-bedrock-trace", [b"ENABLED", b"enabled"]),
    (b"x-amzn-bedrock-guardrailidentifier", [b"g1", b""]),
    (b"x-amzn-bedrock-request-metadata", [b'{"a":"b"}', b'{"a":1}', b"[]", b"\xff", b"{" * 9000, b'{"a":"\xc3\xa9"}']),
    (b"host", [b"", b"a b"]),
    (b"cookie", [b"a=b; " * 500]),
]
_METHODS = ["GET", "POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS", "get", "TRACE", "\x00"]
_PATH_PARTS = [
    "%00",
    "%ff",
    "%",
    "%2",
    "%2F..%2F",
    "//",
    "..",
    "\x7f",
    "é",
    "a" * 3000,
    "*",
    "?",
    "#",
    ";x=1",
    "%25",
    " ",
]


def spoil_value(random: Random, good: Any, others: list[Any]) -> Any:
    """A body with a few things wrong; parts of other bodies may turn up in it."""
    holder = {"": copy.deepcopy(good)}
    for _ in range(random.choice((0, 1, 1, 1, 2, 2, 3, 5))):
        parent, key = random.choice(list(_places(holder)))
        _CHANGES[random.choice(list(_CHANGES))](random, parent, key, others)
        if "" not in holder:
            return None
    return holder[""]


def write(random: Random, value: Any) -> bytes:
    """JSON, or nearly so."""
    ascii_only = random.random() < 0.5
    text = "".join(_written(random, value, ascii_only))
    return text.encode("utf-8", "surrogatepass")


def spoil_bytes(random: Random, body: bytes) -> bytes:
    """Cut off, flipped, stuffed, repeated, in another encoding, or something else entirely."""
    at = random.randint(0, len(body))
    match random.randrange(9):
        case 0:
            return body[:at]
        case 1:
            return body[:at] + random.randbytes(random.randint(1, 8)) + body[at + 1 :]
        case 2:
            return (
                body[:at]
                + random.choice([b"\0", b'"', b"}", b"{", b",", b"\\u", b"\xed\xa0\x80", b"\xc0\x80"])
                + body[at:]
            )
        case 3:
            return body + body
        case 4:
            return body.decode("utf-8", "replace").encode("utf-16")
        case 5:
            return b"\xef\xbb\xbf" + body
        case 6:
            return random.randbytes(random.randint(0, 200))
        case 7:
            return b""
        case _:
            return b" " * random.randint(1, 5000) + body


def spoil_headers(random: Random) -> list[tuple[bytes, bytes]]:
    """A few odd ones; names may come twice."""
    chosen = random.choices(_HEADERS, k=random.randint(1, 3))
    return [(name, random.choice(values)) for name, values in chosen]


def spoil_path(random: Random, method: str, path: str) -> tuple[str, str]:
    """Another method, or a path that leads somewhere else, perhaps."""
    if random.random() < 0.3:
        return random.choice(_METHODS), path
    at = random.randint(1, len(path))
    return method, path[:at] + random.choice(_PATH_PARTS) + path[at + random.choice((0, 0, 1, 5)) :]


def _places(holder: Any) -> Iterator[tuple[Any, Any]]:
    """Every list or object, with the keys in it."""
    pending = [holder]
    while pending:
        parent = pending.pop()
        for key in list(parent) if isinstance(parent, dict) else range(len(parent)):
            yield parent, key
            if isinstance(parent[key], dict | list):
                pending.append(parent[key])


def _replace(random: Random, parent: Any, key: Any, others: list[Any]) -> None:
    parent[key] = copy.deepcopy(random.choice(_VALUES))


def _transplant(random: Random, parent: Any, key: Any, others: list[Any]) -> None:
    source, name = random.choice(list(_places({"": random.choice(others)})))
    parent[key] = copy.deepcopy(source[name])


def _drop(random: Random, parent: Any, key: Any, others: list[Any]) -> None:
    del parent[key]


def _repeat(random: Random, parent: Any, key: Any, others: list[Any]) -> None:
    if isinstance(parent, list):
        parent[key:key] = [parent[key]] * random.choice((1, 2, 20, 20, 300, 3000))
    else:
        parent[key] = [parent[key]] * random.choice((1, 2, 20))


def _add(random: Random, parent: Any, key: Any, others: list[Any]) -> None:
    """A member that is known elsewhere, or nowhere."""
    source, name = random.choice(list(_places({"unknown": random.choice(others)})))
    if isinstance(parent, dict) and isinstance(name, str):
        parent[name] = copy.deepcopy(random.choice((source[name], random.choice(_VALUES))))


def _rename(random: Random, parent: Any, key: Any, others: list[Any]) -> None:
    if isinstance(parent, dict):
        parent[random.choice((key.upper(), key + "\0", "", "é" * 2000, key[:-1]))] = parent.pop(key)


_CHANGES = {
    "replace": _replace,
    "replace too": _replace,
    "transplant": _transplant,
    "drop": _drop,
    "repeat": _repeat,
    "add": _add,
    "rename": _rename,
}


def _written(random: Random, value: Any, ascii_only: bool) -> Iterator[str]:
    if isinstance(value, Raw):
        yield value
    elif isinstance(value, dict):
        yield "{"
        for number, (name, member) in enumerate(value.items()):
            yield ("," if number else "") + json.dumps(name, ensure_ascii=ascii_only) + ":"
            yield from _written(random, member, ascii_only)
            if random.random() < 0.002:
                yield f",{json.dumps(name)}:null"
        yield "}"
    elif isinstance(value, list):
        yield "["
        for number, member in enumerate(value):
            yield "," if number else ""
            yield from _written(random, member, ascii_only)
        yield "]"
    else:
        yield json.dumps(value, ensure_ascii=ascii_only)
