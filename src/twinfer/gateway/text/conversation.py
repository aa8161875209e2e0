"""What every dialect hands over to be answered: a conversation for the model's template, or a prompt as it is."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import groupby
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


@dataclass(frozen=True, slots=True)
class CachePoint:
    """Everything up to here is to be kept for the next time; nobody reads it."""

    ttl_s: float


Part: TypeAlias = Text | Reasoning | ToolCall | ToolResult | CachePoint


@dataclass(frozen=True, slots=True)
class Message:
    """One turn.

    Attributes:
        role: ``system``, ``user``, ``assistant``, or ``tool`` for a turn that holds one tool result.
    """

    role: str
    parts: tuple[Part, ...]

    @property
    def text(self) -> str:
        """What is said in it; each part begins a line."""
        return "\n".join(part.text for part in self.parts if isinstance(part, Text))


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


@dataclass(frozen=True, slots=True)
class JsonOutput:
    """What is said in the answer must be JSON.

    Attributes:
        schema: of it; one that was checked.
        where: its place in the request, for complaints.
    """

    schema: Mapping[str, Any]
    where: str


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
        tool: with ``Calling.ANY``: the one that must be called, and only once; empty for any of them.
        parallel: whether one answer may hold several calls.
        arguments: what a client hands to the template by name.
        output: what the answer must be, unless it is a call.
        keep_tools_s: the tools, with what the system says, are to be kept so long; 0 for no wish.
    """

    messages: tuple[Message, ...]
    tools: tuple[Tool, ...] = ()
    calling: Calling = Calling.AUTO
    tool: str = ""
    parallel: bool = True
    arguments: Mapping[str, Any] = field(default_factory=dict)
    output: JsonOutput | None = None
    keep_tools_s: float = 0.0

    @property
    def num_characters(self) -> int:
        """About how long the text is, with what a template puts around every part of it."""
        spoken = sum(_num_characters(part) for message in self.messages for part in message.parts)
        return spoken + sum(_AROUND_PART + len(tool.description) + len(str(tool.parameters)) for tool in self.tools)


@dataclass(frozen=True, slots=True)
class RawPrompt:
    """A prompt that passes by the template. Its answer is text only: no reasoning and no calls are looked for.

    Attributes:
        content: text, in which special tokens written out are recognised; or token ids, which are taken as they are.
        add_special_tokens: whether the tokenizer puts its own in front of text, such as the one that begins every
            sequence; where the text begins with that one already, there is no second.
    """

    content: str | tuple[int, ...]
    add_special_tokens: bool = True

    @property
    def num_characters(self) -> int:
        """How long the text is; nothing for token ids."""
        return len(self.content) if isinstance(self.content, str) else 0


Prompt: TypeAlias = Conversation | RawPrompt

_AROUND_PART = 30
"""Characters."""


def say(role: str, text: str) -> Message:
    """A turn of nothing but text."""
    return Message(role, (Text(text),))


def merge_turns(messages: Iterable[Message]) -> tuple[Message, ...]:
    """Neighbours of one role become one turn: most templates insist on alternation. Tool results stay apart."""
    merged: list[Message] = []
    for role, neighbours in groupby(messages, key=lambda message: message.role):
        if role == "tool":
            merged += neighbours
        else:
            merged.append(Message(role, tuple(part for message in neighbours for part in message.parts)))
    return tuple(merged)


def _num_characters(part: Part) -> int:
    if isinstance(part, CachePoint):
        return 0
    if isinstance(part, ToolCall):
        return _AROUND_PART + sum(map(len, map(str, part.arguments.values())))
    return _AROUND_PART + len(part.text)
