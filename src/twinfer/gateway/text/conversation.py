"""A conversation as every dialect hands it over, before the model's template makes a prompt of it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, TypeAlias


@dataclass(frozen=True, slots=True)
class Text:
    """What somebody says."""

    text: str


@dataclass(frozen=True, slots=True)
class Reasoning:
    """What the assistant thought before it spoke; templates decide whether it is read again."""

    text: str


@dataclass(frozen=True, slots=True)
class ToolCall:
    """The assistant wants a tool to be called.

    Attributes:
        id: names the call; its result refers to it.
        arguments: the JSON object it is called with.
    """

    id: str
    name: str
    arguments: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class ToolResult:
    """What a tool answered."""

    call_id: str
    text: str
    is_error: bool = False


Part: TypeAlias = Text | Reasoning | ToolCall | ToolResult


@dataclass(frozen=True, slots=True)
class Message:
    """One turn.

    Attributes:
        role: ``system``, ``user``, ``assistant``, or ``tool`` for a turn that holds one tool result.
    """

    role: str
    parts: tuple[Part, ...]


@dataclass(frozen=True, slots=True)
class Tool:
    """A function the model may call.

    Attributes:
        parameters: JSON schema of its arguments.
        strict: whether arguments must be held to the schema.
    """

    name: str
    description: str
    parameters: Mapping[str, Any]
    strict: bool = False


class Calling(StrEnum):
    """Whether tools are called."""

    AUTO = "auto"
    NONE = "none"
    ANY = "any"


@dataclass(frozen=True, slots=True)
class Conversation:
    """Everything a template reads.

    Attributes:
        calling: what the client wants of the tools.
        tool: with ``Calling.ANY``: the one that must be called; empty for any of them.
        arguments: what a client hands to the template by name.
    """

    messages: tuple[Message, ...]
    tools: tuple[Tool, ...] = ()
    calling: Calling = Calling.AUTO
    tool: str = ""
    arguments: Mapping[str, Any] = field(default_factory=dict)
