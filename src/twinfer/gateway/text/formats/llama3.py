"""Llama 3's way: ``{"name": ..., "parameters": {...}}`` and nothing before it but perhaps ``<|python_tag|>``."""

from twinfer.gateway.text.calls import CallStage, CallSyntax, call_in_object, peek_in_object
from twinfer.gateway.text.formats.base import CallFrame, FoundCall, Stage

_BEGIN = "<|python_tag|>"


class Llama3:
    """An object without a mark is a call only if it names a tool that was offered: answers may be JSON as well."""

    marks = (_BEGIN,)
    frame = CallFrame('{"name": "', anywhere=False, tail="}", between="; ")

    def opening(self, tool: str) -> str:
        """As the templates tell the model to write it."""
        return f'{{"name": "{tool}", "parameters":' if tool else '{"name": "'

    def stage(self, offered: frozenset[str]) -> Stage:
        """Several calls are separated by semicolons."""

        def read(head: str, source: str) -> FoundCall | None:
            call = None if head else call_in_object(source)
            return call if call is not None and call.name in offered else None

        def peek(source: str) -> tuple[str, int] | None:
            found = peek_in_object(source)
            return found if found is not None and found[0] in offered else None

        return CallStage(CallSyntax((_BEGIN,), (), " \n\r\t;,", read, peek, ('{"name":', '{"type":"function"')))

    def template_id(self, call_id: str) -> str:
        """Templates do not show it."""
        return call_id
