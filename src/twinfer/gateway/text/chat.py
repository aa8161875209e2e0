"""The model's template, which makes a prompt of a conversation.

The template language is what transformers' ``apply_chat_template`` renders, and gives the same text.
"""

import json
from collections.abc import Callable, Mapping
from datetime import datetime

import jinja2
import jinja2.ext
from jinja2 import nodes
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from twinfer.core.errors import CheckpointError, InvalidRequest
from twinfer.gateway.text.conversation import Calling, Conversation
from twinfer.gateway.text.turns import make_functions, make_turns, style_of


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
        self.variables = dict(variables)
        self._style = style_of(source)
        self.source = source

    def render(self, conversation: Conversation, template_id: Callable[[str], str] = str) -> str:
        """The prompt, up to where the assistant's answer begins. Tools that must not be called are left out.

        Args:
            template_id: makes ids of calls such as the template takes.

        Raises:
            InvalidRequest: the template refuses this conversation.
        """
        turns = make_turns(conversation, self._style, template_id)
        offered = () if conversation.calling is Calling.NONE else conversation.tools
        tools = make_functions(offered) or None
        variables = self.variables | dict(conversation.arguments)
        try:
            return self._template.render(
                variables, messages=turns, tools=tools, documents=None, add_generation_prompt=True
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
