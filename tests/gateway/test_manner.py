"""Which calls and thoughts are looked for."""

import pytest

from tests.gateway import templates
from twinfer.core.errors import InvalidRequest
from twinfer.gateway.text.conversation import Calling, Conversation, Tool, say
from twinfer.gateway.text.formats.harmony import Harmony, HarmonyStage
from twinfer.gateway.text.formats.hermes import Hermes
from twinfer.gateway.text.formats.llama3 import Llama3
from twinfer.gateway.text.formats.mistral import Mistral
from twinfer.gateway.text.manner import Manner, detect
from twinfer.gateway.text.think import ThinkStage

HELLO = (say("user", "hello"),)
TOOLS = (Tool("f", "", {}),)


@pytest.mark.parametrize(
    ("template", "tools", "reasoning"),
    [
        (templates.HERMES, Hermes, "think"),
        (templates.LLAMA3, Llama3, "none"),
        (templates.MISTRAL, Mistral, "none"),
        (templates.HARMONY, Harmony, "harmony"),
        (templates.THINKING, type(None), "think"),
        ("<tool_call>\n<function=f>", type(None), "none"),
        ("<tool_call>f\n<arg_key>a</arg_key>", type(None), "none"),
        ("", type(None), "none"),
    ],
)
def test_a_template_gives_the_manner_away(template: str, tools: type, reasoning: str) -> None:
    """By the marks in it; calls that are no JSON are nobody's."""
    manner = detect("auto", "auto", template, names_think=False)
    assert (tools, reasoning) == (type(manner.tools), manner.reasoning)


def test_what_is_configured_wins() -> None:
    """Each of both on its own; a token for the mark of thoughts is as good as a template with it."""
    manner = detect("llama3", "none", templates.HERMES, names_think=True)
    assert (Llama3, "none") == (type(manner.tools), manner.reasoning)
    assert detect("none", "auto", templates.HERMES, names_think=False) == Manner(None, "think")
    assert detect("auto", "auto", "", names_think=True) == Manner(None, "think")
    assert detect("hermes", "none", "", names_think=True) == Manner()
    newer = detect("auto", "auto", "[TOOL_CALLS][ARGS]", names_think=False).tools
    assert newer is not None
    assert newer.opening("f") == "[TOOL_CALLS]f[ARGS]"


def test_plain_answers_stay_plain() -> None:
    """Nothing is looked for that was not offered."""
    manner = Manner(Hermes())
    assert manner.stage(Conversation(HELLO), thinking=False) is None
    assert manner.stage(Conversation(HELLO, TOOLS, Calling.NONE), thinking=False) is None
    assert manner.stage(Conversation(HELLO, TOOLS), thinking=False) is not None
    assert isinstance(Manner(None, "think").stage(Conversation(HELLO), thinking=False), ThinkStage)
    assert isinstance(Manner(None, "harmony").stage(Conversation(HELLO), thinking=False), HarmonyStage)


def test_only_forced_calls_are_begun() -> None:
    """And only where there are tools."""
    manner = Manner(Hermes())
    assert manner.opening(Conversation(HELLO, TOOLS)) == ""
    assert manner.opening(Conversation(HELLO, (), Calling.ANY)) == ""
    assert manner.opening(Conversation(HELLO, TOOLS, Calling.NONE)) == ""
    assert manner.opening(Conversation(HELLO, TOOLS, Calling.ANY)) == '<tool_call>\n{"name": "'
    assert manner.opening(Conversation(HELLO, TOOLS, Calling.ANY, "f")) == '<tool_call>\n{"name": "f", "arguments":'


def test_a_model_that_cannot_call_refuses_tools() -> None:
    """Unless they are only there for history's sake."""
    with pytest.raises(InvalidRequest, match="doesn't support tool use"):
        Manner().opening(Conversation(HELLO, TOOLS))
    assert Manner().opening(Conversation(HELLO, TOOLS, Calling.NONE)) == ""


def test_a_prompt_may_end_inside_a_thought() -> None:
    """White space after the mark does not close it; a mark that is closed, or nobody's, does not open."""
    manner = Manner(None, "think")
    opened = [manner.opens(text) for text in ("<think>\n", "<think>\n\n</think>\n\n", "assistant\n")]
    assert ([True, False, False], False) == (opened, Manner().opens("<think>"))
