"""Sampling options that both API families take under the same names."""

from collections.abc import Callable, Collection, Mapping
from typing import Any

from twinfer.core.errors import InvalidRequest
from twinfer.gateway.dialects.reader import Reader
from twinfer.gateway.text.chat import ChatTemplate

_MAX_SALT_CHARACTERS = 256
_MAX_STOP_CHARACTERS = 32_768
"""In all stop strings of a request: the automaton that finds them takes about 300 bytes for each."""


def read_stop_strings(field: Reader, at_most: int) -> tuple[str, ...]:
    """A list of stop strings, none of them empty."""
    strings = tuple(item.string(at_least=1) for item in field.items(at_most=at_most))
    if sum(map(len, strings)) > _MAX_STOP_CHARACTERS:
        raise field.violation(f"Members must have a total length less than or equal to {_MAX_STOP_CHARACTERS}")
    return strings


def refuse_others(fields: Reader, names: Collection[str]) -> None:
    """See that an object has no members but these.

    Raises:
        InvalidRequest: it has others.
    """
    for name in fields.mapping():
        if name not in names:
            raise InvalidRequest(
                f"Malformed input request: extraneous key [{name[:100]}] is not permitted, please reformat your input "
                "and try again.",
                where=fields.path or name,
            )


def _top_k(field: Reader) -> int:
    return max(0, field.integer(at_least=-1, at_most=2**31 - 1))


def _seed(field: Reader) -> int:
    """Any 64-bit integer; engines take 63 bits."""
    return field.integer(at_least=-(2**63), at_most=2**64 - 1) & (2**63 - 1)


def _logit_bias(field: Reader) -> dict[int, float]:
    bias = {}
    for name, member in field.members():
        if not (name.isascii() and name.isdecimal() and len(name) < 10):
            raise field.violation("Keys must be token ids")
        bias[int(name)] = member.number(-100, 100)
    return bias


def _stop_token_ids(field: Reader) -> tuple[int, ...]:
    return tuple(item.integer(at_least=0) for item in field.items(at_most=1024))


def _template_arguments(field: Reader) -> dict[str, Any]:
    for name, member in field.members():
        if name in ChatTemplate.RESERVED:
            raise member.violation("Member is set by the server")
    return dict(field.value)


_EXTRAS: Mapping[str, Callable[[Reader], Any]] = {
    "top_k": _top_k,
    "min_p": lambda field: field.number(0, 1),
    "seed": _seed,
    "frequency_penalty": lambda field: field.number(-2, 2),
    "presence_penalty": lambda field: field.number(-2, 2),
    "repetition_penalty": lambda field: field.number(0.01, 100),
    "logit_bias": _logit_bias,
    "stop_token_ids": _stop_token_ids,
    "ignore_eos": Reader.boolean,
    "cache_salt": lambda field: field.string(at_most=_MAX_SALT_CHARACTERS),
    "min_tokens": lambda field: field.integer(at_least=0, at_most=2**31 - 1),
}
EXTRA_NAMES = frozenset({*_EXTRAS, "chat_template_kwargs", "reasoning_effort"})
"""All fields that ``read_extras`` and ``read_template_arguments`` look at."""


def read_extras(fields: Reader) -> dict[str, Any]:
    """Arguments for ``Options`` from those members of an object that are such options; others are left alone."""
    return {name: read(field) for name, read in _EXTRAS.items() if (field := fields.get(name)) is not None}


def read_template_arguments(fields: Reader) -> dict[str, Any]:
    """What a client hands to the template: ``reasoning_effort`` and the members of ``chat_template_kwargs``."""
    arguments: dict[str, Any] = {}
    if (effort := fields.get("reasoning_effort")) is not None:
        arguments["reasoning_effort"] = effort.string(at_most=64)
    if (given := fields.get("chat_template_kwargs")) is not None:
        arguments |= _template_arguments(given)
    return arguments
