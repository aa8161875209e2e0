"""One answer in which calls and thoughts are told from text."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from twinfer.gateway.text.content import Delta, ReasoningDelta, TextDelta, ToolCallDelta, ToolCallStart
from twinfer.gateway.text.detokenizer import Detokenizer
from twinfer.gateway.text.formats.base import BegunCall, CallPart, Event, FoundCall, Stage
from twinfer.gateway.text.stop import StopFinder, StopSet


@dataclass(frozen=True, slots=True)
class CallRules:
    """What a client wants of the calls in an answer.

    Attributes:
        draw_id: names a call.
        opening: what of the answer is in the prompt already; not shown, should it not become a call.
        only_one: the first whole call ends the answer.
        whole: calls are shown when they are whole, and a broken one is text. Otherwise arguments are shown while they
            are written, and a call that breaks ends the answer: what was shown of it is the beginning of an object.
    """

    draw_id: Callable[[], str]
    opening: str = ""
    only_one: bool = False
    whole: bool = True


class StructuredReading:
    """Reads an answer in two steps: tokens become text with marks, and a stage finds what that means.

    Stop strings are looked for in what is shown as text, and in each text on its own. vLLM looks for them in all that
    the model writes, and OpenAI's reasoning models take none; here they never cut a thought, which no client reads as
    the answer, nor a call, whose arguments would no longer be JSON.

    Args:
        marks: written forms, by id, of special tokens that the stage must see.
        stage: fresh.
    """

    def __init__(
        self, detokenizer: Detokenizer, stops: StopSet, marks: Mapping[int, str], stage: Stage, rules: CallRules
    ) -> None:
        self._detokenizer = detokenizer
        self._finder = StopFinder(stops)
        self._marks = marks
        self._stage = stage
        self._rules = rules
        self._deltas: list[Delta] = []
        self._num_calls = 0
        self._open = False  # a call is shown that is not whole yet
        self._has_arguments = False
        self._broken = False
        self.num_reasoning_tokens = 0
        """Tokens that were read inside a thought, its closing mark included."""
        self._absorb(stage.feed(rules.opening) if rules.opening else [])

    @property
    def stopped(self) -> str | None:
        """The stop string that ended the text."""
        return self._finder.matched

    @property
    def done(self) -> bool:
        """Whether nothing more is wanted."""
        return self._finder.matched is not None or self._broken or (self._rules.only_one and self._num_calls > 0)

    @property
    def lacks_call(self) -> bool:
        """Whether a call was begun, in the prompt or by the model itself, and none came of it."""
        return self._broken or (bool(self._rules.opening) and not self._num_calls)

    def feed(self, token_id: int) -> None:
        """Read one more token."""
        mark = self._marks.get(token_id)
        text = self._detokenizer.feed(token_id) if mark is None else self._detokenizer.finish() + mark
        thinking = self._stage.thinking
        if text:
            self._absorb(self._stage.feed(text))
        if thinking or self._stage.thinking:
            self.num_reasoning_tokens += 1

    def take(self) -> tuple[Delta, ...]:
        """What became certain since the last call."""
        deltas, self._deltas = tuple(self._deltas), []
        return deltas

    def finish(self) -> None:
        """No more tokens come."""
        if not self.done:
            self._absorb(self._stage.feed(self._detokenizer.finish()))
            self._absorb(self._stage.finish())
        self._show(self._finder.finish())

    def _absorb(self, events: list[Event]) -> None:
        for event in events:
            if self.done:
                return
            if isinstance(event, ReasoningDelta):
                self._show(self._finder.finish())
                self._add(event)
            elif isinstance(event, FoundCall):
                self._end_call(event)
            elif isinstance(event, BegunCall):
                if not self._rules.whole:
                    self._begin_call(event.name)
            elif isinstance(event, CallPart):
                if self._open:
                    self._add_arguments(event.json)
            elif self._open:
                self._broken = True
            elif isinstance(event, TextDelta):
                self._show(self._finder.feed(event.text))
            else:
                self._show(self._finder.feed(self._without_marks(event.text.removeprefix(self._rules.opening))))

    def _begin_call(self, name: str) -> None:
        self._show(self._finder.finish())
        self._deltas.append(ToolCallStart(self._rules.draw_id(), name))
        self._open = True
        self._has_arguments = False

    def _add_arguments(self, json: str) -> None:
        self._deltas.append(ToolCallDelta(json))
        self._has_arguments = True

    def _end_call(self, call: FoundCall) -> None:
        """Show what is not shown of it yet."""
        if not self._open:
            self._begin_call(call.name)
        if not self._has_arguments:
            self._add_arguments(call.json)
        self._open = False
        self._num_calls += 1

    def _show(self, text: str) -> None:
        if text:
            self._add(TextDelta(text))

    def _add(self, delta: TextDelta | ReasoningDelta) -> None:
        """Neighbours of one kind are one."""
        last = self._deltas[-1] if self._deltas else None
        if isinstance(last, TextDelta | ReasoningDelta) and type(last) is type(delta):
            self._deltas[-1] = type(delta)(last.text + delta.text)
        else:
            self._deltas.append(delta)

    def _without_marks(self, text: str) -> str:
        """As the text would read, had nobody looked for calls in it."""
        for mark in self._marks.values():
            text = text.replace(mark, "")
        return text
