"""What a way of writing tool calls must tell, and what reading an answer finds."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from twinfer.gateway.text.content import ReasoningDelta, TextDelta


@dataclass(frozen=True, slots=True)
class BegunCall:
    """What looks like a call, by its name. A found or broken one will tell; who waits for that may ignore this."""

    name: str


@dataclass(frozen=True, slots=True)
class CallPart:
    """More of the object of the arguments of the call that was begun."""

    json: str


@dataclass(frozen=True, slots=True)
class FoundCall:
    """A whole, well-formed call; ``json`` is the text of the object of its arguments."""

    name: str
    json: str


@dataclass(frozen=True, slots=True)
class BrokenCall:
    """What began like a call and is none: its source, marks included."""

    text: str


Event: TypeAlias = TextDelta | ReasoningDelta | BegunCall | CallPart | FoundCall | BrokenCall


class Stage(Protocol):
    """Reads the text of one answer, special tokens that are marks written out in it.

    What it finds does not depend on how the text is cut into feeds, but for where texts are cut.
    """

    @property
    def thinking(self) -> bool:
        """Whether what comes next is thought."""
        ...

    def feed(self, text: str) -> list[Event]:
        """What became certain with more text."""
        ...

    def finish(self) -> list[Event]:
        """What was held back, when no more text comes."""
        ...


@dataclass(frozen=True, slots=True)
class CallFrame:
    """What stands around the arguments of calls, besides what ``ToolFormat.opening`` says.

    Attributes:
        trigger: the beginning of every opening that nothing else may begin with.
        anywhere: calls may follow text; else an answer is calls or text.
        begin: what of an opening the second call and later ones have not.
        tail: after a call's arguments.
        between: between two calls; ``None`` where one call ends the answer.
        end: after the last call.
    """

    trigger: str
    anywhere: bool = True
    begin: str = ""
    tail: str = ""
    between: str | None = ""
    end: str = ""


class ToolFormat(Protocol):
    """One family's way."""

    @property
    def frame(self) -> CallFrame:
        """How a grammar writes calls."""
        ...

    @property
    def marks(self) -> Sequence[str]:
        """Written forms of the tokens that structure an answer; some tokenizers leave them out of text."""
        ...

    def opening(self, tool: str) -> str:
        """How a call begins, up to where its arguments do; up to the tool's name, where that is empty."""
        ...

    def stage(self, offered: frozenset[str]) -> Stage:
        """For an answer to a client who offered these tools."""
        ...

    def template_id(self, call_id: str) -> str:
        """A call's id as the family's templates take it."""
        ...
