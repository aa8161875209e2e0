from dataclasses import replace

import pytest

from twinfer.core.errors import CheckpointError, InvalidRequest
from twinfer.gateway.text.chat import ChatTemplate
from twinfer.gateway.text.conversation import Conversation, Message, Text, merge_turns, say

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
