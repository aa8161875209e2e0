"""Calls of tools as families of models write them."""

import json
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.gateway.formats import cut, joined, read, told
from twinfer.gateway.text.content import TextDelta
from twinfer.gateway.text.formats.base import BegunCall, BrokenCall, CallPart, FoundCall, Stage, ToolFormat
from twinfer.gateway.text.formats.hermes import Hermes
from twinfer.gateway.text.formats.llama3 import Llama3
from twinfer.gateway.text.formats.mistral import Mistral

TOOLS = frozenset({"f", "get_weather"})
WEATHER = FoundCall("get_weather", '{"city":"東京","n":[1,{"a":"}"}]}')
WEATHER_JSON = '{"city": "東京", "n": [1, {"a": "}"}]}'
F = FoundCall("f", "{}")


def hermes() -> Stage:
    """Marked on both sides."""
    return Hermes().stage(TOOLS)


def llama3() -> Stage:
    """Not marked at all, or in front."""
    return Llama3().stage(TOOLS)


def mistral() -> Stage:
    """Marked in front, in two ways."""
    return Mistral(newer=True).stage(TOOLS)


WELL_FORMED = [
    (hermes, f'<tool_call>\n{{"name": "get_weather", "arguments": {WEATHER_JSON}}}\n</tool_call>', [WEATHER]),
    (
        hermes,
        'Let me see.\n\n<tool_call>\n{"name": "f", "arguments": {}}\n</tool_call>\n'
        f'<tool_call>{{"arguments": {WEATHER_JSON}, "name": "get_weather"}}</tool_call>\n',
        [TextDelta("Let me see."), F, WEATHER],
    ),
    (hermes, '<tool_call>{"name": "f"}</tool_call> Done.', [F, TextDelta("Done.")]),
    (hermes, '<tool_call>{"name": "f", "arguments": "{}"}', [F]),
    (hermes, " a < b <tool> c \n", [TextDelta(" a < b <tool> c \n")]),
    (llama3, f'{{"name": "get_weather", "parameters": {WEATHER_JSON}}}', [WEATHER]),
    (llama3, '\n{"type": "function", "name": "f", "parameters": {}}', [F]),
    (
        llama3,
        f'<|python_tag|>{{"name": "f", "parameters": {{}}}}; {{"name": "get_weather", "parameters": {WEATHER_JSON}}}',
        [F, WEATHER],
    ),
    (llama3, '{"name": "Bob", "age": 3}', [TextDelta('{"name": "Bob", "age": 3}')]),
    (llama3, ' {"age": {"name": "f"}} ', [TextDelta(' {"age": {"name": "f"}} ')]),
    (
        llama3,
        '{"id": 1, "name": "f", "parameters": {}}',
        [TextDelta('{"id": 1, "name": "f", "parameters": {}}')],
    ),
    (hermes, r'<tool_call>{"name": "f", "arguments": {"a": "\"}"}}', [FoundCall("f", r'{"a":"\"}"}')]),
    (hermes, '<tool_call>{"name": "f", "arguments": {}} </tool_c', [F]),
    (hermes, '<tool_call>{"name": "f", "arguments": {}} so <', [F, TextDelta("so <")]),
    (llama3, 'See {"name": "f", "parameters": {}}', [TextDelta('See {"name": "f", "parameters": {}}')]),
    (
        mistral,
        f'[TOOL_CALLS][{{"name": "get_weather", "arguments": {WEATHER_JSON}}}, '
        '{"name": "f", "arguments": {}, "id": "123456789"}]',
        [WEATHER, F],
    ),
    (
        mistral,
        f"Sure.[TOOL_CALLS]get_weather[ARGS]{WEATHER_JSON}[TOOL_CALLS]f[ARGS]{{}}",
        [TextDelta("Sure."), WEATHER, F],
    ),
    (mistral, "[TOOL_CALLS]f[CALL_ID]123456789[ARGS]{}[TOOL_CALLS]f{}", [F, F]),
]


@pytest.mark.parametrize(("stage", "text", "events"), WELL_FORMED)
def test_well_formed_calls_are_found_and_their_markup_never_shown(
    stage: Callable[[], Stage], text: str, events: list[TextDelta | FoundCall]
) -> None:
    """In one piece, character by character: the same calls, and the same text around them."""
    assert events == joined(read(stage(), [text]))
    assert events == joined(read(stage(), list(text)))


BROKEN = [
    (hermes, '<tool_call>{"name": "f", "arguments": {"a": 1'),
    (hermes, '<tool_call>{"name": "f", "arguments": [1]}</tool_call> so.'),
    (hermes, '<tool_call>{"name": "bad name!", "arguments": {}}'),
    (hermes, '<tool_call>{"name": "f", "arguments": {"a": NaN}}'),
    (hermes, '<tool_call>{"name": "f", "arguments": {"a": "\\ud800"}}'),
    (hermes, "a \n<tool_call>" + "b" * 300 + ' {"name": "f"}'),
    (hermes, "<tool_call>" + " " * 300 + '{"name": "f"}'),
    (hermes, "<tool_call>"),
    (llama3, '{"name": "f", "parameters": {"a":'),
    (llama3, "<|python_tag|>print(1)"),
    (mistral, "[TOOL_CALLS]f[ARGS]{'a': 1}"),
    (mistral, "[TOOL_CALLS]two words[ARGS]{}"),
]


@pytest.mark.parametrize(("stage", "text"), BROKEN)
def test_a_broken_call_is_text(stage: Callable[[], Stage], text: str) -> None:
    """Cut off, no JSON, no object, a name that none has: all of it, marks included, and no call."""
    for pieces in ([text], list(text)):
        assert [TextDelta(text)] == joined(read(stage(), pieces))


@pytest.mark.parametrize(("stage", "text", "events"), WELL_FORMED)
def test_a_call_is_told_in_advance(stage: Callable[[], Stage], text: str, events: list[TextDelta | FoundCall]) -> None:
    """Its name first, then its arguments as they are written; nothing is told but what becomes a call."""
    calls = [(event.name, json.loads(event.json)) for event in events if isinstance(event, FoundCall)]
    early = [(name, json.loads(arguments)) for name, arguments in told(read(stage(), list(text)))]
    assert [call for call in calls if call in early] == early


def test_arguments_are_told_character_by_character() -> None:
    """As soon as the name is known and they begin; line breaks in strings are written as JSON wants them."""
    one = hermes()
    assert [] == one.feed('<tool_call>{"name": "f", "arguments":')
    assert [BegunCall("f"), CallPart('{"')] == one.feed(' {"')
    assert [CallPart('a": "')] == one.feed('a": "')
    assert [CallPart("\\u000a")] == one.feed("\n")
    assert [CallPart('"}')] == one.feed('"}')
    assert [FoundCall("f", '{"a":"\\n"}')] == one.feed("} ")


def test_only_a_head_of_sane_length_is_told_in_advance() -> None:
    """However the text is cut; the call itself may have any amount of white space."""
    text = '<tool_call>{"name":' + " " * 300 + '"f", "arguments": {}}'
    for pieces in ([text], list(text)):
        assert [F] == read(hermes(), pieces)


def test_only_offered_tools_are_told_of_without_a_mark() -> None:
    """An answer that is JSON may look like a call for a while."""
    text = '{"name": "nobody", "parameters": {"a": 1}}'
    assert [BrokenCall(text)] == read(llama3(), [text])


def test_what_broke_says_so() -> None:
    """So that marks can be left out of it where the tokenizer leaves them out of text."""
    assert [BrokenCall("<|python_tag|>print(1)")] == read(llama3(), ["<|python_tag|>print(1)"])


def test_after_a_broken_call_calls_are_found_again() -> None:
    """One mishap does not spoil the rest."""
    broken = '<tool_call>{"name": 1}'
    assert [TextDelta(broken), F] == joined(read(hermes(), [broken, '<tool_call>{"name": "f"}</tool_call>']))


FRAGMENTS = [
    *("<tool_call>", "</tool_call>", "<tool_", "[TOOL_CALLS]", "[ARGS]", "[", "]", "<|python_tag|>", "; ", ", "),
    *('{"name": "f", "arguments": {}}', '{"name":"get_weather","parameters":{"a":"{"}}', '{"name": "f", ', "{", "}"),
    *('"', "\\", "f", " ", "\n", "hello", "é🙂", "x" * 300, '{"age": 1}', '{"type":"function",'),
]


@given(
    st.sampled_from([hermes, llama3, mistral]),
    st.lists(st.sampled_from(FRAGMENTS), max_size=12).map("".join),
    st.lists(st.integers(0, 400), max_size=12),
)
def test_cutting_changes_nothing(stage: Callable[[], Stage], text: str, places: list[int]) -> None:
    """Whatever a model writes: the same in pieces as in one, every call's arguments an object, and no text made up."""
    events = joined(read(stage(), [text]))
    assert events == joined(read(stage(), cut(text, places)))
    for event in events:
        if isinstance(event, FoundCall):
            assert isinstance(json.loads(event.json), dict)
    assert told(read(stage(), [text])) == told(read(stage(), cut(text, places)))
    shown = "".join(event.text for event in events if isinstance(event, TextDelta))
    assert len(shown) <= len(text)
    if not any(isinstance(event, FoundCall) for event in events):
        assert shown == text


@pytest.mark.parametrize("tool_format", [Hermes(), Llama3(), Mistral(newer=False), Mistral(newer=True)])
def test_an_opening_leaves_only_the_rest_to_write(tool_format: ToolFormat) -> None:
    """Of a named call the arguments, of any call its name too."""
    closing = "" if isinstance(tool_format, Mistral) and "[ARGS]" in tool_format.opening("f") else "}"
    assert [F] == joined(read(tool_format.stage(TOOLS), [tool_format.opening("f"), " {}" + closing]))
    rest = {"[TOOL_CALLS]": "f[ARGS]{}"}.get(tool_format.opening(""), 'f", "arguments": {}}')
    assert [F] == joined(read(tool_format.stage(TOOLS), [tool_format.opening(""), rest]))


def test_mistral_s_templates_get_ids_of_nine_characters() -> None:
    """Its own stay; others become digests, the same each time, so that prompts stay cached."""
    mistral_format = Mistral(newer=False)
    assert mistral_format.template_id("abcDEF123") == "abcDEF123"
    made = mistral_format.template_id("call_0123456789")
    assert (9, True, made) == (len(made), made.isalnum(), mistral_format.template_id("call_0123456789"))
    assert made != mistral_format.template_id("call_0123456780")
