"""Reads answers with marked calls in them: text, a mark, one or more JSON objects, perhaps a mark that ends them.

1. In text, everything passes but a mark that begins a call.
2. After the mark comes a head, which may be empty, and an object. Whether both are a call is certain when the object is
   whole; what they look like is told as soon as the arguments begin.
3. After an object come more of them, a mark that ends or begins a call, or text.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from twinfer.gateway.text.content import TextDelta
from twinfer.gateway.text.formats.base import BegunCall, BrokenCall, CallPart, Event, FoundCall
from twinfer.gateway.text.json_object import ObjectScanner, ObjectStream, read_object, write_object
from twinfer.gateway.text.marks import MarkWatch
from twinfer.gateway.text.prose import Prose

_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")
_MAX_HEAD = 256
"""Characters between a mark and the object; where there are more, it is no call."""


@dataclass(frozen=True, slots=True)
class CallSyntax:
    """What tells one family's calls from another's.

    Attributes:
        begin: marks that begin a call.
        end: marks that end one; a family without them writes calls at the answer's end only.
        separators: characters that may stand between calls.
        read: the call that a head and an object make, if they do.
        peek: the name in what was read after a mark, and where the object of the arguments begins; ``None`` as long as
            it is not in sight.
        bare: beginnings of an object, without white space, that make it a call without any mark at the answer's start.
    """

    begin: Sequence[str]
    end: Sequence[str]
    separators: str
    read: Callable[[str, str], FoundCall | None]
    peek: Callable[[str], tuple[str, int] | None]
    bare: Sequence[str] = ()


class CallStage:
    """A stage for one answer."""

    thinking = False

    def __init__(self, syntax: CallSyntax) -> None:
        self._syntax = syntax
        self._prose = Prose()
        self._in_text = MarkWatch(syntax.begin)
        self._between = MarkWatch((*syntax.begin, *syntax.end))
        self._scanner = ObjectScanner()
        self._arguments: ObjectStream | None = None
        self._mark = ""
        self._bare = False
        self._space = ""
        self._events: list[Event] = []
        self._read: Callable[[str], str] = self._read_start if syntax.bare else self._read_text

    def feed(self, text: str) -> list[Event]:
        """Text outside of calls, and calls that are whole."""
        while text:
            text = self._read(text)
        return self._take()

    def finish(self) -> list[Event]:
        """Text that was held back; a call that is not whole is broken, and a mark after one is none to be shown."""
        if self._read == self._read_call:
            self._break()
        elif self._read != self._read_between:
            self._show(self._prose.feed(self._space + self._in_text.flush()) + self._prose.finish())
        return self._take()

    def _read_start(self, text: str) -> str:
        """An answer that is nothing but a call needs no mark."""
        text = self._space + text
        self._space = ""
        if not text.strip():
            self._space = text
            return ""
        if text.lstrip().startswith("{"):
            return self._begin("", text, bare=True)
        self._read = self._read_text
        return text

    def _read_text(self, text: str) -> str:
        before, mark, rest = self._in_text.feed(text)
        self._show(self._prose.feed(before))
        return self._begin(mark, rest) if mark else ""

    def _begin(self, mark: str, rest: str, bare: bool = False) -> str:
        self._scanner = ObjectScanner()
        self._arguments = None
        self._mark = mark
        self._bare = bare
        self._read = self._read_call
        return rest

    def _read_call(self, text: str) -> str:
        end = self._scanner.feed(text)
        rest = "" if end is None else text[end:]
        if not self._plausible(whole=end is not None):
            return self._doubt(rest)
        self._tell(text[:end])
        if end is not None:
            source, start = self._scanner.text, self._scanner.start or 0
            call = self._syntax.read(source[:start].strip(), source[start:])
            if call is None:
                self._break()
            else:
                self._prose.cut()
                self._events.append(call)
                self._read = self._read_between
        return rest

    def _tell(self, text: str) -> None:
        """Say what is in sight of the call."""
        if self._arguments is None:
            if self._scanner.start is None or self._scanner.num_characters - len(text) > _MAX_HEAD:
                return
            source = self._scanner.text
            found = self._syntax.peek(source)
            if found is None or found[1] > _MAX_HEAD:
                return
            self._events.append(BegunCall(found[0]))
            self._arguments = ObjectStream()
            text = source[found[1] :]
        if part := self._arguments.feed(text):
            self._events.append(CallPart(part))

    def _plausible(self, whole: bool) -> bool:
        """Whether what was read of a call may be one; without a mark, its beginning decides."""
        scanner = self._scanner
        if not self._bare:
            return (scanner.num_characters if scanner.start is None else scanner.start) <= _MAX_HEAD
        if scanner.num_characters > _MAX_HEAD and not whole:
            return True
        compact = "".join(scanner.text[:_MAX_HEAD].split())
        return any(known.startswith(compact) or compact.startswith(known) for known in self._syntax.bare)

    def _doubt(self, rest: str) -> str:
        """It was none from the start. What follows the part that decided so is read again, as text."""
        self._show(self._prose.finish())
        source = self._scanner.text
        decided = 0 if self._bare else _MAX_HEAD
        if not self._bare:
            self._events.append(BrokenCall(self._mark + source[:decided]))
        self._read = self._read_text
        return source[decided:] + rest

    def _break(self) -> None:
        """It was one and did not come to a good end."""
        self._show(self._prose.finish())
        self._events.append(BrokenCall(self._mark + self._scanner.text))
        self._read = self._read_text

    def _read_between(self, text: str) -> str:
        before, mark, rest = self._between.feed(text)
        more = before.lstrip(self._syntax.separators)
        if more:
            rest = more + (mark + rest if mark else self._between.flush())
            if more.startswith("{"):
                return self._begin("", rest)
            self._read = self._read_text
        elif mark in self._syntax.begin:
            return self._begin(mark, rest)
        elif mark:
            self._read = self._read_text
        return rest

    def _show(self, text: str) -> None:
        if text:
            self._events.append(TextDelta(text))

    def _take(self) -> list[Event]:
        events, self._events = self._events, []
        return events


def named_call(name: object, arguments: object) -> FoundCall | None:
    """A call, if the name is one and the arguments are an object."""
    text = write_object(arguments)
    if text is None or not isinstance(name, str) or not _NAME.fullmatch(name):
        return None
    return FoundCall(name, text)


def call_in_object(text: str) -> FoundCall | None:
    """A call written as one object, with a ``name`` and ``arguments`` or ``parameters``."""
    value = read_object(text)
    if value is None:
        return None
    return named_call(value.get("name"), value.get("arguments", value.get("parameters")))


_HEAD_OF_OBJECT = re.compile(
    r"""\s*\[?\s*\{\s*"name"\s*:\s*"([a-zA-Z0-9_-]{1,64})"\s*,\s*"(?:arguments|parameters)"\s*:\s*(?=\{)"""
)


def peek_in_object(source: str) -> tuple[str, int] | None:
    """The name and the beginning of the arguments in a call written as one object, if they stand in this order."""
    found = _HEAD_OF_OBJECT.match(source)
    return (found[1], found.end()) if found else None
