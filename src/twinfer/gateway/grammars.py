"""Grammars of answers: written, tried against the model's tokens, and remembered."""

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

from twinfer.core.errors import InvalidRequest
from twinfer.gateway.text.conversation import Calling, Conversation, Tool
from twinfer.gateway.text.grammar_text import ANY_OBJECT, LOOSE, Written, json_grammar, write_grammar
from twinfer.gateway.text.schema import check_schema
from twinfer.grammar.vocabulary import Vocabulary

MAX_CHARACTERS = 200_000
"""Of a grammar. Larger ones are slow to compile."""
MAX_REMEMBERED = 1024
"""Grammars of which it is known whether they can be used."""


class Grammars:
    """Those of one model. Safe to use from several threads."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._vocabulary = vocabulary
        self._complaints: OrderedDict[str, str] = OrderedDict()

    def write(self, conversation: Conversation, written: Written) -> str:
        """The grammar of the answers to a conversation that needs one. May take a while for a new schema.

        Raises:
            InvalidRequest: a schema is not supported, or nothing satisfies it.
        """
        output = conversation.output
        schema = None if output is None else output.schema
        forced = conversation.calling is Calling.ANY
        arguments = {tool.name: self._arguments(tool, forced) for tool in conversation.tools}
        source = write_grammar(conversation, written, schema, arguments)
        complaint = self._complaint(source)
        if complaint:
            where = "tools" if output is None else output.where
            raise InvalidRequest(f"The schema at {where} cannot be used: {complaint}; simplify it.", where=where)
        return source

    def _arguments(self, tool: Tool, forced: bool) -> Mapping[str, Any]:
        """What the arguments of a tool are held to. Of one that is not strict, as much as can be, if it is forced."""
        if tool.strict:
            return {**check_schema(tool.parameters, f"the tool {tool.name}"), "type": "object"}
        if not forced:
            return ANY_OBJECT
        schema = {**tool.parameters, "type": "object", **LOOSE}
        return ANY_OBJECT if self._complaint(json_grammar(schema)) else schema

    def _complaint(self, source: str) -> str:
        """Why a grammar cannot be used; empty if it can."""
        if len(source) > MAX_CHARACTERS:
            return f"it makes a grammar of {len(source)} characters, more than {MAX_CHARACTERS}"
        found = self._complaints.get(source)
        if found is None:
            found = self._complaints[source] = self._vocabulary.complaint(source)
            if len(self._complaints) > MAX_REMEMBERED:
                self._complaints.popitem(last=False)
        return found
