"""Harmony, the way of gpt-oss: messages, each with a header that names a channel and perhaps whom it is for.

An answer goes on after ``<|start|>assistant`` in the prompt::

    <|channel|>analysis<|message|>thoughts<|end|>
    <|start|>assistant<|channel|>commentary to=functions.name <|constrain|>json<|message|>{...}<|call|>
    <|start|>assistant<|channel|>final<|message|>text<|return|>

``<|call|>`` and ``<|return|>`` end the generation. The structure lies in special tokens, which the tokenizer of the
checkpoint knows, so that nothing but the checkpoint is needed to read it.
"""

import re

from twinfer.gateway.text.calls import named_call
from twinfer.gateway.text.content import ReasoningDelta, TextDelta
from twinfer.gateway.text.formats.base import BegunCall, BrokenCall, CallFrame, CallPart, Event, Stage
from twinfer.gateway.text.json_object import ObjectStream
from twinfer.gateway.text.marks import MarkWatch

_START, _CHANNEL, _MESSAGE, _CONSTRAIN = "<|start|>", "<|channel|>", "<|message|>", "<|constrain|>"
_ENDS = ("<|end|>", "<|call|>", "<|return|>")
_CHANNEL_NAME = re.compile(r"<\|channel\|>\s*(\w+)")
_RECIPIENT = re.compile(r"to=functions\.([^\s<]+)")
_OTHER_RECIPIENT = re.compile(r"to=\S")


class Harmony:
    """Thoughts, calls and text are told apart by their messages' headers."""

    marks = (_START, _CHANNEL, _MESSAGE, _CONSTRAIN, *_ENDS)
    frame = CallFrame(f"{_CHANNEL}commentary to=functions.", anywhere=False, between=None)

    def opening(self, tool: str) -> str:
        """The header of a message to the tool. There is no thinking before it."""
        address = f"{_CHANNEL}commentary to=functions.{tool}"
        return f"{address} {_CONSTRAIN}json{_MESSAGE}" if tool else address

    def stage(self, offered: frozenset[str]) -> Stage:
        """Whatever a call is addressed to, it is one."""
        return HarmonyStage()

    def template_id(self, call_id: str) -> str:
        """Templates do not show it."""
        return call_id


class HarmonyStage:
    """Reads one answer."""

    def __init__(self) -> None:
        self._in_header = MarkWatch((_MESSAGE,))
        self._in_body = MarkWatch((*_ENDS, _START))
        self._header: str | None = ""
        """What was read of a header; ``None`` in a message's body."""
        self._tool = ""
        self._call: list[str] = []
        self._arguments = ObjectStream()
        self.thinking = False
        """Whether this is the body of a message that only the model itself reads."""

    def feed(self, text: str) -> list[Event]:
        """Text and thoughts as they come, calls when they are whole."""
        events: list[Event] = []
        while text:
            text = self._read_body(text, events) if self._header is None else self._read_header(text)
        return events

    def finish(self) -> list[Event]:
        """The last message, which ends with the answer. What never had a header is text."""
        events: list[Event] = []
        if self._header is None:
            self._add(self._in_body.flush(), events)
            self._end(events)
        elif _CHANNEL not in self._header and (text := self._header + self._in_header.flush()):
            events.append(TextDelta(text))
        return events

    def _read_header(self, text: str) -> str:
        before, mark, rest = self._in_header.feed(text)
        header = (self._header or "") + before
        self._header = None if mark else header
        if mark:
            channel, tool = _CHANNEL_NAME.search(header), _RECIPIENT.search(header)
            self._tool = tool[1] if tool else ""
            unread = tool is None and _OTHER_RECIPIENT.search(header) is not None
            self.thinking = not self._tool and (unread or (channel is not None and channel[1] == "analysis"))
        return rest

    def _read_body(self, text: str, events: list[Event]) -> str:
        before, mark, rest = self._in_body.feed(text)
        self._add(before, events)
        if mark:
            self._end(events)
            self._header = ""
        return rest

    def _add(self, text: str, events: list[Event]) -> None:
        if self._tool:
            if not self._call:
                self._arguments = ObjectStream()
                events.append(BegunCall(self._tool))
            self._call.append(text)
            if part := self._arguments.feed(text):
                events.append(CallPart(part))
        elif text:
            events.append(ReasoningDelta(text) if self.thinking else TextDelta(text))

    def _end(self, events: list[Event]) -> None:
        if self._tool:
            source = "".join(self._call)
            events.append(named_call(self._tool, source.strip() or None) or BrokenCall(source))
        self._tool, self._call, self.thinking = "", [], False
