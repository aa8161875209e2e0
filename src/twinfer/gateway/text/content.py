"""An answer's content as every dialect gets it: deltas while it is generated, blocks when it is whole.

A block begins with a delta of another kind than the last one's, and with every ``ToolCallStart``. Deltas are structs
because there is one for every token, and these are made in half the time.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeAlias

import msgspec


class TextDelta(msgspec.Struct, frozen=True, gc=False):
    """More of the text; never empty."""

    text: str


class ReasoningDelta(msgspec.Struct, frozen=True, gc=False):
    """More of what is thought before the text; never empty."""

    text: str


class ToolCallStart(msgspec.Struct, frozen=True, gc=False):
    """A tool is being called.

    Attributes:
        id: drawn by the gateway; matches ``[a-zA-Z0-9_-]{1,64}``.
    """

    id: str
    name: str


class ToolCallDelta(msgspec.Struct, frozen=True, gc=False):
    """More of the JSON text of the arguments; all of a call's together are one JSON object."""

    json: str


Delta: TypeAlias = TextDelta | ReasoningDelta | ToolCallStart | ToolCallDelta


@dataclass(frozen=True, slots=True)
class TextBlock:
    """Text."""

    text: str


@dataclass(frozen=True, slots=True)
class ReasoningBlock:
    """What was thought."""

    text: str


@dataclass(frozen=True, slots=True)
class ToolCallBlock:
    """A call of a tool; ``json`` is the object it is called with."""

    id: str
    name: str
    json: str


Block: TypeAlias = TextBlock | ReasoningBlock | ToolCallBlock


def join_deltas(deltas: Iterable[Delta]) -> tuple[Block, ...]:
    """The blocks that deltas make."""
    runs: list[list[Delta]] = []
    for delta in deltas:
        if runs and _continues(runs[-1][-1], delta):
            runs[-1].append(delta)
        else:
            runs.append([delta])
    return tuple(map(_block, runs))


def _continues(last: Delta, delta: Delta) -> bool:
    if isinstance(delta, ToolCallDelta):
        return isinstance(last, ToolCallStart | ToolCallDelta)
    return type(last) is type(delta) and not isinstance(delta, ToolCallStart)


def _block(run: list[Delta]) -> Block:
    first = run[0]
    if isinstance(first, ToolCallStart):
        json = "".join(delta.json for delta in run if isinstance(delta, ToolCallDelta))
        return ToolCallBlock(first.id, first.name, json)
    text = "".join(delta.text for delta in run if isinstance(delta, TextDelta | ReasoningDelta))
    return TextBlock(text) if isinstance(first, TextDelta) else ReasoningBlock(text)
