"""A conversation as every dialect hands it over, and the model's template that makes a prompt of it.

The template language is what transformers' ``apply_chat_template`` renders, and gives the same text.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

import jinja2
import jinja2.ext
from jinja2 import nodes
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from twinfer.core.errors import CheckpointError, InvalidRequest


@dataclass(frozen=True, slots=True)
class Message:
    """One turn.

    Attributes:
        role: ``system``, ``user`` or ``assistant``.
        content: its text.
    """

    role: str
    content: str


def join_text(parts: Iterable[str]) -> str:
    """One text of several parts: each begins a line."""
    return "\n".join(parts)


def merge_turns(messages: Iterable[Message]) -> tuple[Message, ...]:
    """Neighbours of one role become one turn: most templates insist on alternation."""
    merged: list[Message] = []
    for message in messages:
        if merged and merged[-1].role == message.role:
            message = Message(message.role, join_text((merged.pop().content, message.content)))
        merged.append(message)
    return tuple(merged)


class ChatTemplate:
    """A model's chat template.

    Args:
        source: Jinja source, as the checkpoint holds it.
        variables: the special tokens it may name, such as ``bos_token``.

    Raises:
        CheckpointError: the source is not a template.
    """

    RESERVED = frozenset({"messages", "tools", "documents", "add_generation_prompt"})
    """Names a client's template arguments may not take."""

    def __init__(self, source: str, variables: Mapping[str, str]) -> None:
        try:
            self._template = _environment().from_string(source)
        except jinja2.TemplateSyntaxError as error:
            raise CheckpointError(f"the chat template has a syntax error in line {error.lineno}: {error}") from error
        self._variables = dict(variables)

    def render(self, messages: Sequence[Message], arguments: Mapping[str, object]) -> str:
        """The prompt, up to where the assistant's answer begins.

        Raises:
            InvalidRequest: the template refuses this conversation.
        """
        turns = [{"role": message.role, "content": message.content} for message in messages]
        variables = self._variables | dict(arguments)
        try:
            return self._template.render(
                variables, messages=turns, tools=None, documents=None, add_generation_prompt=True
            )
        except (jinja2.TemplateError, TypeError, ValueError, LookupError, ArithmeticError, RecursionError) as error:
            raise InvalidRequest(f"The model's chat template refuses this conversation: {error}") from error


def _environment() -> ImmutableSandboxedEnvironment:
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, jinja2.ext.loopcontrols]
    )
    environment.filters["tojson"] = _to_json
    environment.globals["raise_exception"] = _raise_exception
    environment.globals["strftime_now"] = lambda pattern: datetime.now().strftime(pattern)
    return environment


class _Generation(jinja2.ext.Extension):
    """``{% generation %}`` marks the assistant's text for training; for serving it is its content."""

    tags = {"generation"}  # noqa: RUF012 - jinja2 declares it so

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        return nodes.Scope(parser.parse_statements(("name:endgeneration",), drop_needle=True), lineno=line)


def _to_json(
    value: object,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """Unlike Jinja's own, it escapes neither HTML nor non-ASCII characters."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _raise_exception(message: str) -> None:
    raise jinja2.TemplateError(message)
