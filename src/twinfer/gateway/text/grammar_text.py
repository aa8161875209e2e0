"""Writes the grammar of an answer in llguidance's dialect of Lark, so that what reads the answer finds what was asked.

1. An answer that begins with a call in the prompt goes on from there: ``opening`` is not part of it.
2. Else there may be thoughts first, as the model writes them.
3. Then comes what is said: any text, or JSON; or calls, where tools are offered. In text, calls begin with a trigger.

Special tokens are named by their ids, all else by its bytes, so one token or several may make it up.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from twinfer.gateway.text.conversation import Calling, Conversation
from twinfer.gateway.text.formats.base import ToolFormat
from twinfer.gateway.text.manner import Manner
from twinfer.gateway.text.think import CLOSE, OPEN

ANY_OBJECT: Mapping[str, Any] = {"type": "object"}
_OPTIONS = "x-guidance"
LOOSE = {_OPTIONS: {"lenient": True, "coerce_one_of": True}}
"""Members of a schema that let llguidance leave out what it does not know."""
_HEAD = '%llguidance {"no_forcing": true}\n'
"""Forced text may be cut into tokens in any way: workers have no tokenizer to tell which one is usual."""
_JSON_STYLE = {
    "whitespace_flexible": False,
    "item_separator": ",[ ]?",
    "key_separator": ":[ ]?",
}
"""No white space but one after a comma or colon: models that may write more sometimes never stop."""


@dataclass(frozen=True, slots=True)
class Written:
    """How the model writes, and what of the answer is in the prompt.

    Attributes:
        thinking: the prompt ends inside a thought.
        opening: what of a call the prompt ends with.
        special: ids of marks that are special tokens.
    """

    manner: Manner
    thinking: bool
    opening: str
    special: Mapping[str, int]


def needs_grammar(conversation: Conversation) -> bool:
    """Whether answers cannot just be anything."""
    if conversation.output is not None:
        return True
    if not conversation.tools or conversation.calling is Calling.NONE:
        return False
    return conversation.calling is Calling.ANY or any(tool.strict for tool in conversation.tools)


def json_grammar(schema: Mapping[str, Any]) -> str:
    """The grammar of nothing but JSON."""
    return f"{_HEAD}start: {_json(schema)}\n"


def write_grammar(
    conversation: Conversation,
    written: Written,
    schema: Mapping[str, Any] | None,
    arguments: Mapping[str, Mapping[str, Any]],
) -> str:
    """The grammar of the answers.

    Args:
        conversation: one that needs a grammar.
        written: how the model writes.
        schema: of what is said; ``None`` for any text.
        arguments: schema of each tool's arguments, by its name.
    """
    return _HEAD + _Writer(conversation, written, schema, arguments).text()


@dataclass(slots=True)
class _Writer:
    conversation: Conversation
    written: Written
    schema: Mapping[str, Any] | None
    arguments: Mapping[str, Mapping[str, Any]]
    rules: list[str] = field(default_factory=lambda: ["TEXT: /(?s:.*)/"])

    def text(self) -> str:
        tools = self.written.manner.tools
        calls = tools if self.conversation.tools and self.conversation.calling is not Calling.NONE else None
        said = "TEXT" if self.schema is None else self._rule("said", _json(self.schema))
        if calls is not None and self.written.opening:
            start = self._calls(calls, self.written.opening)
        elif self.written.manner.reasoning == "harmony":
            start = self._messages(calls, said)
        else:
            start = f"{self._thought()} {self._body(calls, said)}"
        return "\n".join([f"start: {start}", *self.rules, ""])

    def _body(self, calls: ToolFormat | None, said: str) -> str:
        if calls is None:
            return said
        if self.schema is not None:
            return f"({said} | {self._calls(calls, '')})"
        trigger = calls.frame.trigger
        if calls.frame.anywhere:
            return f"({self._until('trigger', trigger)} {self._calls(calls, trigger)})* TEXT"
        self.rules.append(rf"NO_CALL: /(\s*[^\s{trigger[0]}](?s:.*))?/")
        return f"({self._calls(calls, '')} | NO_CALL)"

    def _messages(self, calls: ToolFormat | None, said: str) -> str:
        """Harmony: what is said and what is not have channels."""
        aside = ["analysis", "commentary"] if calls and self.schema is None else ["analysis"]
        asides = [f"({self._literal(f'<|channel|>{name}<|message|>')})" for name in aside]
        thought = f"(({' | '.join(asides)}) TEXT {self._literal('<|end|><|start|>assistant')})*"
        final = f"{self._literal('<|channel|>final<|message|>')} {said}"
        return f"{thought} ({final} | {self._calls(calls, '')})" if calls else f"{thought} {final}"

    def _thought(self) -> str:
        if self.written.manner.reasoning != "think":
            return ""
        rest = rf"{self._until('thought', CLOSE)} /[ \n]{{0,4}}/"
        return rest if self.written.thinking else f"({self._literal(OPEN)} {rest})?"

    def _calls(self, tools: ToolFormat, begun: str) -> str:
        """Calls, the first without what it is begun with."""
        frame, conversation = tools.frame, self.conversation
        names = [conversation.tool] if conversation.tool else [tool.name for tool in conversation.tools]
        first = " | ".join(self._call(tools, name, tools.opening(name).removeprefix(begun)) for name in names)
        several = conversation.parallel and not conversation.tool and frame.between is not None
        more = ""
        if several:
            heads = {name: (frame.between or "") + tools.opening(name).removeprefix(frame.begin) for name in names}
            more = f"({' | '.join(self._call(tools, name, head) for name, head in heads.items())})*"
        return f"({first}) {more} {self._literal(frame.end)}"

    def _call(self, tools: ToolFormat, name: str, head: str) -> str:
        rule = self._rule(f"arguments_{list(self.arguments).index(name)}", _json(self.arguments[name]))
        return f"{self._literal(head)} / ?/ {rule} {self._literal(tools.frame.tail)}"

    def _until(self, name: str, mark: str) -> str:
        """Any text up to the mark, and the mark."""
        if mark in self.written.special:
            return f"TEXT {self._literal(mark)}"
        return self._rule(f"{name}[lazy]", f"TEXT {self._literal(mark)}")

    def _rule(self, name: str, body: str) -> str:
        """Add a rule, once."""
        if (line := f"{name}: {body}") not in self.rules:
            self.rules.append(line)
        return name.partition("[")[0]

    def _literal(self, text: str) -> str:
        """A text as it is."""
        special = self.written.special
        pattern = "|".join(map(re.escape, special))
        parts = re.split(f"({pattern})", text) if special else [text]
        return " ".join(f"<[{special[part]}]>" if part in special else _quoted(part) for part in parts if part)


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _json(schema: Mapping[str, Any]) -> str:
    return "%json " + json.dumps({**schema, _OPTIONS: _JSON_STYLE | schema.get(_OPTIONS, {})}, ensure_ascii=False)
