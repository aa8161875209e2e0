"""Thoughts between ``<think>`` and ``</think>``, as DeepSeek-R1's and Qwen3's kin write them."""

from collections.abc import Callable

from twinfer.gateway.text.content import ReasoningDelta
from twinfer.gateway.text.formats.base import Event, Stage
from twinfer.gateway.text.marks import MarkWatch
from twinfer.gateway.text.prose import Prose

OPEN, CLOSE = "<think>", "</think>"


class ThinkStage:
    """Looks for thoughts at an answer's start, and hands all that follows to the next stage.

    Later on, ``<think>`` is a word like any other.

    Args:
        opened: the prompt ends with the opening mark.
    """

    def __init__(self, inner: Stage, opened: bool) -> None:
        self._inner = inner
        self._prose = Prose()
        self._prose.cut()
        self._watch = MarkWatch((CLOSE,))
        self._held = ""
        self._read: Callable[[str, list[Event]], str] = self._read_start
        self.thinking = opened
        """Whether what comes next is thought, as far as is known."""

    def feed(self, text: str) -> list[Event]:
        """Thoughts as they come."""
        events: list[Event] = []
        while text:
            text = self._read(text, events)
        return events

    def finish(self) -> list[Event]:
        """What was held back; thoughts may last to the end."""
        events: list[Event] = []
        if self.thinking:
            self._think(self._held + self._watch.flush(), events)
        elif self._held:
            events += self._inner.feed(self._held)
        return events + self._inner.finish()

    def _read_start(self, text: str, events: list[Event]) -> str:
        text = self._held + text
        begun = text.lstrip()
        self._held = ""
        if begun.startswith(OPEN):
            self.thinking = True
            self._read = self._read_thought
            return begun[len(OPEN) :]
        if OPEN.startswith(begun):
            self._held = text
            return ""
        self._read = self._read_thought if self.thinking else self._read_rest
        return text

    def _read_thought(self, text: str, events: list[Event]) -> str:
        before, mark, rest = self._watch.feed(text)
        self._think(before, events)
        if mark:
            self.thinking = False
            self._read = self._read_space
        return rest

    def _read_space(self, text: str, events: list[Event]) -> str:
        """White space after thoughts only separates."""
        text = text.lstrip()
        if text:
            self._read = self._read_rest
        return text

    def _read_rest(self, text: str, events: list[Event]) -> str:
        events += self._inner.feed(text)
        return ""

    def _think(self, text: str, events: list[Event]) -> None:
        if shown := self._prose.feed(text):
            events.append(ReasoningDelta(shown))
