"""Hermes' and Qwen's way: ``<tool_call>{"name": ..., "arguments": {...}}</tool_call>``, once for each call."""

from twinfer.gateway.text.calls import CallStage, CallSyntax, call_in_object, peek_in_object
from twinfer.gateway.text.formats.base import CallFrame, FoundCall, Stage

_BEGIN, _END = "<tool_call>", "</tool_call>"


class Hermes:
    """Marks are words to some tokenizers and special tokens to others."""

    marks = (_BEGIN, _END)
    frame = CallFrame(_BEGIN, tail=f"}}\n{_END}", between="\n")

    def opening(self, tool: str) -> str:
        """As the templates tell the model to write it."""
        return f'{_BEGIN}\n{{"name": "{tool}", "arguments":' if tool else f'{_BEGIN}\n{{"name": "'

    def stage(self, offered: frozenset[str]) -> Stage:
        """Whatever is named in a call, it is one."""
        return CallStage(CallSyntax((_BEGIN,), (_END,), " \n\r\t", _read, peek_in_object))

    def template_id(self, call_id: str) -> str:
        """Templates do not show it."""
        return call_id


def _read(head: str, source: str) -> FoundCall | None:
    return None if head else call_in_object(source)
