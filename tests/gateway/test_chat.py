from dataclasses import replace

import pytest

from tests.gateway import templates
from twinfer.core.errors import CheckpointError, InvalidRequest
from twinfer.gateway.text.chat import ChatTemplate
from twinfer.gateway.text.conversation import (
    Calling,
    Conversation,
    Message,
    Reasoning,
    Text,
    Tool,
    ToolCall,
    ToolResult,
    merge_turns,
    say,
)

TURNS = Conversation((say("system", "Be brief."), say("user", "Grüße <b> & 東京"), say("assistant", "Hi.")))

# After Llama 3's, Qwen's and Mistral's: namespaces, loop controls, white-space control, tojson, strftime_now.
TEMPLATES = (
    """{{- bos_token }}
{%- if not date_string is defined %}{%- set date_string = "26 Jul 2024" %}{%- endif %}
{%- if messages[0]['role'] == 'system' %}
    {%- set system_message = messages[0]['content']|trim %}
    {%- set messages = messages[1:] %}
{%- endif %}
{{- "<|start|>system<|end|>\\n\\nToday: " + date_string + "\\n" + system_message + "<|eot|>" }}
{%- for message in messages %}
    {{- '<|start|>' + message['role'] + '<|end|>\\n\\n' + message['content'] | trim + '<|eot|>' }}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|start|>assistant<|end|>\\n\\n' }}{%- endif %}
""",
    """{% set ns = namespace(last=-1) %}
{% for message in messages %}
  {% if message.role == "system" %}{% continue %}{% endif %}
    {% set ns.last = loop.index0 %}
{{ message | tojson }} {{ {"a": message.content} | tojson(indent=2) }}
{% endfor %}
last={{ ns.last }} {{ "tools" if tools else "no tools" }} {{ strftime_now("%%") }}
""",
    """{% for message in messages %}{% if message.role == 'assistant' %}{% generation %}{% set x = 1 %}
{{ message.content }}{% endgeneration %}{% else %}{{ message.content }}{% endif %}{% endfor %}{{ x is defined }}""",
)


@pytest.mark.parametrize("source", TEMPLATES)
def test_the_prompt_is_what_transformers_renders(source: str) -> None:
    """Same text to the last space, so that a checkpoint sees the prompts it was trained on."""
    rendering = pytest.importorskip("transformers.utils.chat_template_utils")
    conversation = [{"role": turn.role, "content": turn.text} for turn in TURNS.messages]
    oracle, _ = rendering.render_jinja_template(
        [conversation], chat_template=source, add_generation_prompt=True, bos_token="<s>"
    )
    assert oracle[0] == ChatTemplate(source, {"bos_token": "<s>"}).render(TURNS)


def weather(city: str) -> dict[str, object]:
    """Arguments."""
    return {"city": city, "days": [1, 2]}


TOOLS = (
    Tool("get_weather", 'Says what it\'s like "outside".', {"type": "object", "properties": {"city": {"enum": ["é"]}}}),
    Tool("stop", "", {"type": "object", "properties": {}}),
)
CALLED = Conversation(
    (
        say("system", "Be brief."),
        say("user", "Weather in 東京?"),
        Message(
            "assistant", (Reasoning("Hm."), Text("I look."), ToolCall("abcdef123", "get_weather", weather("東京")))
        ),
        Message("tool", (ToolResult("abcdef123", '{"rain": true}'),)),
        say("assistant", "Wet."),
        say("user", "And now?"),
    ),
    TOOLS,
)
CALLED_AS_DICTS = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Weather in 東京?"},
    {
        "role": "assistant",
        "content": "I look.",
        "reasoning_content": "Hm.",
        "tool_calls": [
            {
                "type": "function",
                "id": "abcdef123",
                "function": {"name": "get_weather", "arguments": {"city": "東京", "days": [1, 2]}},
            }
        ],
    },
    {"role": "tool", "content": '{"rain": true}', "tool_call_id": "abcdef123", "name": "get_weather"},
    {"role": "assistant", "content": "Wet."},
    {"role": "user", "content": "And now?"},
]
TOOLS_AS_DICTS = [
    {"type": "function", "function": {"name": t.name, "description": t.description, "parameters": t.parameters}}
    for t in TOOLS
]


@pytest.mark.parametrize("source", [templates.HERMES, templates.LLAMA3, templates.MISTRAL])
@pytest.mark.parametrize("offered", [True, False])
def test_prompts_with_tools_are_what_transformers_renders(source: str, offered: bool) -> None:
    """Tools, calls, results and thoughts in the form that ``apply_chat_template`` takes and templates expect."""
    rendering = pytest.importorskip("transformers.utils.chat_template_utils")
    special = {"bos_token": "<s>", "eos_token": "</s>"}
    oracle, _ = rendering.render_jinja_template(
        [CALLED_AS_DICTS],
        tools=TOOLS_AS_DICTS if offered else None,
        chat_template=source,
        add_generation_prompt=True,
        **special,
    )
    conversation = CALLED if offered else replace(CALLED, tools=())
    assert oracle[0] == ChatTemplate(source, special).render(conversation)


def test_tools_that_must_not_be_called_are_not_shown() -> None:
    """The surest way to have none called; what was called before stays."""
    template = ChatTemplate(templates.HERMES, {})
    silent = template.render(replace(CALLED, calling=Calling.NONE))
    assert template.render(replace(CALLED, tools=())) == silent
    assert "<tools>" not in silent


TWO_CALLS = (
    say("user", "Both."),
    Message("assistant", (Text("Well."), ToolCall("1", "f", {"a": 1}), ToolCall("2", "g", {}))),
    Message("tool", (ToolResult("2", "second"),)),
    Message("tool", (ToolResult("1", "first"),)),
    say("user", "So?"),
)


def test_calls_made_together_are_shown_one_by_one_where_a_template_takes_but_one() -> None:
    """Llama's refuses two in a turn; each gets its result, and text stays with the first."""
    prompt = ChatTemplate(templates.LLAMA3, {"bos_token": ""}).render(Conversation(TWO_CALLS))
    order = ['"name": "f"', "first", '"name": "g"', "second", "So?"]
    assert sorted(order, key=prompt.index) == order
    assert [1] * len(order) == [prompt.count(word) for word in order]


def test_a_template_that_reads_thinking_gets_it_there() -> None:
    """gpt-oss' does, and refuses it beside text in a turn with a call."""
    template = ChatTemplate(templates.HARMONY, {})
    turn = Message("assistant", (Reasoning("Hm."), ToolCall("1", "f", {})))
    assert "analysis<|message|>Hm.<|end|>" in template.render(Conversation((say("user", "a"), turn)))
    both = Message("assistant", (Reasoning("Hm."), Text("So."), ToolCall("1", "f", {})))
    result = Message("tool", (ToolResult("1", "first"),))
    prompt = template.render(Conversation((say("user", "a"), both, result)))
    assert "<|start|>functions.f to=assistant" in prompt


def test_ids_are_made_as_the_template_takes_them() -> None:
    """In calls and in their results alike."""
    template = ChatTemplate(templates.MISTRAL, {"bos_token": "", "eos_token": ""})
    prompt = template.render(Conversation(TWO_CALLS[:3]), lambda call_id: call_id * 9)
    assert '"id": "111111111"' in prompt
    assert '"call_id": "222222222"' in prompt


def test_arguments_reach_the_template() -> None:
    """A client may set what the template asks for."""
    template = ChatTemplate("{{ 'thinking' if enable_thinking else 'not' }}", {})
    assert [template.render(TURNS), template.render(replace(TURNS, arguments={"enable_thinking": True}))] == [
        "not",
        "thinking",
    ]


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("{{ raise_exception('Roles must alternate.') }}", "Roles must alternate"),
        ("{{ messages[9].content }}", "has no element 9"),
        ("{{ messages + 1 }}", "can only concatenate"),
        ("{{ 1 // 0 }}", "by zero"),
        ("{{ messages.__class__.__mro__ }}", "unsafe"),
        ("{{ messages.append(1) }}", "not safely callable|unsafe"),
    ],
)
def test_a_template_that_fails_refuses_the_conversation(source: str, reason: str) -> None:
    """Whether on purpose, by a bug or for the sandbox's walls: the client gets the reason, nothing crashes."""
    with pytest.raises(InvalidRequest, match=reason):
        ChatTemplate(source, {}).render(TURNS)


def test_a_template_with_a_syntax_error_is_found_when_loaded() -> None:
    """The operator learns at start which line is wrong."""
    with pytest.raises(CheckpointError, match="line 2"):
        ChatTemplate("ok\n{% for %}", {})


def test_neighbours_of_one_role_become_one_turn() -> None:
    """Order and text stay; only the borders go. A tool turn is one result, so these stay apart."""
    turns = [say("user", "a"), say("user", "b"), say("assistant", "c"), say("tool", "d"), say("tool", "e")]
    both = Message("user", (Text("a"), Text("b")))
    assert (both, *turns[2:]) == merge_turns(turns)
    assert both.text == "a\nb"


def test_very_many_turns_are_merged_in_one_go() -> None:
    """Not one by one, each time with all that came before."""
    (merged,) = merge_turns([say("user", "a")] * 300_000)
    assert len(merged.parts) == 300_000


def test_parts_without_text_have_a_length() -> None:
    """A template writes something for each of them, so that very many are a long prompt."""
    calls = tuple(ToolCall(str(number), "x", {}) for number in range(1000))
    assert Conversation((Message("assistant", calls),)).num_characters > 20_000
