"""A model that follows a conversation as far as clients' own tests need it, by rules that are plain to see.

It reads its prompt as any model does, and writes text:

1. Where tools are offered and the last turn is the user's, it calls: the tool whose call was begun for it, or else the
   one whose words the user used most. Arguments are what the schema's types ask for, out of what
   the user said: what "NAME is", or what is quoted, or how it begins; the first number.
2. Otherwise it answers in a sentence, with the tool's result if there is one.
"""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

_TURN = re.compile(r"<\|im_start\|>(\w+)\n(.*?)(?=<\|im_end\|>|\Z)", re.DOTALL)
_RESULT = re.compile(r"<tool_response>\n?(.*?)\n?</tool_response>", re.DOTALL)
_TOOLS = re.compile(r"<tools>\n(.*?)\n</tools>", re.DOTALL)
_QUOTED = re.compile(r"['\"“「]([^'\"”」]+)['\"”」]")
_OPENING = re.compile(r'<tool_call>\s*\{"name": "(?:([\w-]+)", "arguments":)?')


def answer(prompt: str) -> str:
    """What it writes after a prompt in the style of Qwen's template."""
    turns = _TURN.findall(prompt) or [("", prompt)]
    begun = _OPENING.match(turns[-1][1]) if turns[-1][0] == "assistant" else None
    said = next((text for role, text in reversed(turns[:-1]) if role == "user"), "")
    results = _RESULT.findall(said)
    tools = _offered(prompt)
    if not tools or (results and begun is None):
        return f"It says: {results[-1]}." if results else "The sea is deep, blue and salty. It is never the same."
    tool = tools[begun[1]] if begun and begun[1] else max(tools.values(), key=lambda each: _likeness(each, said))
    call = json.dumps({"name": tool["name"], "arguments": _value(tool["parameters"], said, {})}, ensure_ascii=False)
    written = f"<tool_call>\n{call}\n</tool_call>"
    if begun is None:
        return written
    head = '{"name": "' if not begun[1] else f'{{"name": "{begun[1]}", "arguments":'
    return written[written.index(head) + len(head) :]


def _offered(prompt: str) -> Mapping[str, Any]:
    found = _TOOLS.search(prompt)
    functions = [json.loads(line)["function"] for line in found[1].splitlines()] if found else []
    return {function["name"]: function for function in functions}


def _likeness(tool: Mapping[str, Any], said: str) -> int:
    words = set(re.findall(r"\w+", f"{tool['name'].replace('_', ' ')} {tool['description']}".lower()))
    return len(words & set(re.findall(r"\w+", said.lower()))) + 10 * (tool["name"] in said)


def _value(schema: Mapping[str, Any], said: str, definitions: Mapping[str, Any], name: str = "") -> Any:
    """Something that a schema allows, for the member of this name."""
    definitions = {**definitions, **schema.get("$defs", {})}
    if "$ref" in schema:
        return _value(definitions[schema["$ref"].rpartition("/")[2]], said, definitions)
    for choice in ("enum", "anyOf", "oneOf", "allOf"):
        if choice in schema:
            first = schema[choice][0]
            return first if choice == "enum" else _value(first, said, definitions, name)
    numbers = re.findall(r"-?\d+", said) or ["3"]
    match schema.get("type", "object"):
        case "object":
            properties = schema.get("properties", {})
            return {name: _value(member, said, definitions, name) for name, member in properties.items()}
        case "array":
            return [_value(schema.get("items", {"type": "string"}), said, definitions)]
        case "integer" | "number":
            return int(numbers[0])
        case "boolean":
            return True
        case _:
            return _words(said, name)


def _words(said: str, name: str) -> str:
    """What the user says that it is; a name that the user quotes; or how the user begins."""
    found: Sequence[str] = re.findall(rf"\b{re.escape(name)} is ([\w:]+)", said)
    if not found and name.endswith("name"):
        found = _QUOTED.findall(said)
    return found[0] if found else said.strip()[:10] or "nothing"
