"""Mistral's ways: ``[TOOL_CALLS][{"name": ..., "arguments": {...}}, ...]``, and since version 11 of its tokenizer
``[TOOL_CALLS]name[ARGS]{...}`` for each call."""

import hashlib
import re

from twinfer.gateway.text.calls import CallStage, CallSyntax, call_in_object, named_call, peek_in_object
from twinfer.gateway.text.formats.base import CallFrame, FoundCall, Stage

_BEGIN, _ARGS, _ID = "[TOOL_CALLS]", "[ARGS]", "[CALL_ID]"
_HEAD = re.compile(r"([a-zA-Z0-9_-]+)(?:\[CALL_ID\][a-zA-Z0-9]*)?(?:\[ARGS\])?")
_TEMPLATE_ID = re.compile(r"[a-zA-Z0-9]{9}")


class Mistral:
    """Both ways are read; only how a forced call begins depends on which one the model was trained on.

    Args:
        newer: it writes names before the object.
    """

    marks = (_BEGIN, _ARGS, _ID)

    def __init__(self, newer: bool) -> None:
        self._newer = newer

    @property
    def frame(self) -> CallFrame:
        """In the way the model was trained on."""
        return CallFrame(_BEGIN) if self._newer else CallFrame(_BEGIN, True, f"{_BEGIN}[", "}", ", ", "]")

    def opening(self, tool: str) -> str:
        """In the way the model was trained on."""
        if self._newer:
            return f"{_BEGIN}{tool}{_ARGS}" if tool else _BEGIN
        return f'{_BEGIN}[{{"name": "{tool}", "arguments":' if tool else f'{_BEGIN}[{{"name": "'

    def stage(self, offered: frozenset[str]) -> Stage:
        """Whatever is named in a call, it is one."""
        return CallStage(CallSyntax((_BEGIN,), (), " \n\r\t,]", _read, _peek))

    def template_id(self, call_id: str) -> str:
        """Nine letters or digits, which is what Mistral's templates insist on: its own if it is so, else a digest."""
        if _TEMPLATE_ID.fullmatch(call_id):
            return call_id
        return hashlib.sha256(call_id.encode()).hexdigest()[:9]


def _read(head: str, source: str) -> FoundCall | None:
    if head in ("", "["):
        return call_in_object(source)
    named = _HEAD.fullmatch(head)
    return named_call(named[1], source) if named else None


def _peek(source: str) -> tuple[str, int] | None:
    head = source[: source.find("{")]
    named = _HEAD.fullmatch(head.strip())
    return (named[1], len(head)) if named else peek_in_object(source)
