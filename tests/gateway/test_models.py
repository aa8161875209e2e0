from dataclasses import replace

import pytest
from tokenizers import processors

from tests.gateway import templates
from tests.gateway.house import SPECIAL, byte_level_backend
from twinfer.core.errors import UnknownModel
from twinfer.core.ids import ModelId
from twinfer.gateway.models import ModelRegistry, ServedModel
from twinfer.gateway.text.chat import ChatTemplate
from twinfer.gateway.text.conversation import Calling, Conversation, RawPrompt, Tool, say
from twinfer.gateway.text.formats.hermes import Hermes
from twinfer.gateway.text.formats.mistral import Mistral
from twinfer.gateway.text.manner import Manner
from twinfer.gateway.text.tokenizer import Tokenizer


@pytest.mark.parametrize(
    "name",
    [
        "twinfer.tiny-v1:0",
        "meta.llama3-1-8b-instruct-v1:0",
        "meta.llama3-1-8b-instruct",
        "us.meta.llama3-1-8b-instruct-v1:0",
        "us-gov.twinfer.tiny-v1:0",
        "global.twinfer.tiny-v1:0",
        "arn:aws:bedrock:us-east-1::foundation-model/twinfer.tiny-v1:0",
        "arn:aws-us-gov:bedrock:us-gov-west-1:123456789012:inference-profile/us.twinfer.tiny-v1:0",
    ],
)
def test_a_model_answers_to_all_its_names(model: ServedModel, name: str) -> None:
    """Id, alias, either endpoint's spelling, geographic profile and ARN mean the same."""
    assert model is ModelRegistry([model]).find(name)


@pytest.mark.parametrize(
    "name",
    [
        "",
        "*",
        "us.",
        "tiny-v1:0",
        "twinfer.tiny-v2:0",
        "twinfer.tiny-v1:0:extra",
        "xx.twinfer.tiny-v1:0",
        "us.eu.twinfer.tiny-v1:0",
        "arn:aws:bedrock:us-east-1:123456789012:application-inference-profile/twinfer.tiny-v1:0",
        "arn:aws:s3:::foundation-model/twinfer.tiny-v1:0",
    ],
)
def test_other_names_are_unknown(model: ServedModel, name: str) -> None:
    """The error keeps the name, because a dialect words unknown ids and unknown resources differently."""
    with pytest.raises(UnknownModel) as caught:
        ModelRegistry([model]).find(name)
    assert name == caught.value.where


def test_the_first_configured_comes_first_and_keeps_its_names(model: ServedModel) -> None:
    """Order is the operator's; an alias claimed twice stays with the first."""
    other = replace(model, id=ModelId("twinfer.other-v1:0"))
    registry = ModelRegistry([model, other])
    assert [model.id, other.id] == [each.id for each in registry]
    assert model is registry.find("meta.llama3-1-8b-instruct-v1:0")
    assert other is registry.find("twinfer.other-v1:0")


def test_a_wildcard_takes_what_is_nobody_s(model: ServedModel) -> None:
    """Suites that name models of others can run."""
    wild = replace(model, id=ModelId("twinfer.wild-v1:0"), aliases=("*",))
    registry = ModelRegistry([model, wild])
    assert (model, wild) == (registry.find("us.twinfer.tiny-v1:0"), registry.find("anthropic.claude-v9"))


def test_a_name_without_a_version_takes_any(model: ServedModel) -> None:
    """As its other endpoint spells a model that was configured without."""
    qwen = replace(model, id=ModelId("qwen.qwen3-32b"), aliases=("us.mine",))
    registry = ModelRegistry([qwen])
    assert [qwen] * 3 == [registry.find(name) for name in ("qwen.qwen3-32b-v1:0", "us.qwen.qwen3-32b-1:0", "us.mine")]


def test_a_wildcard_takes_no_application_profile(model: ServedModel) -> None:
    """That is a resource of its own, and is missing."""
    wild = ModelRegistry([replace(model, aliases=("*",))])
    with pytest.raises(UnknownModel):
        wild.find("arn:aws:bedrock:us-east-1:123456789012:application-inference-profile/abc123")


def beginning_tokenizer() -> Tokenizer:
    """One that puts its first special token in front of every text."""
    backend = byte_level_backend()
    backend.post_processor = processors.TemplateProcessing(single=f"{SPECIAL[0]} $A", special_tokens=[(SPECIAL[0], 0)])
    return Tokenizer(backend)


def test_a_raw_prompt_begins_once(model: ServedModel) -> None:
    """The tokenizer's own special tokens are added if wanted, but never a second one; the text's own always count."""
    model = replace(model, tokenizer=beginning_tokenizer())
    hi = model.tokenizer.encode("hi", add_special_tokens=False)
    assert (0, *hi) == model.prompt(RawPrompt("hi"))
    assert hi == model.prompt(RawPrompt("hi", add_special_tokens=False))
    for wanted in (True, False):
        assert (0, *hi) == model.prompt(RawPrompt(f"{SPECIAL[0]}hi", wanted))
    assert (0, 0, 7) == model.prompt(RawPrompt((0, 0, 7)))
    assert (0, 0, *hi) == model.prompt(RawPrompt(f"{SPECIAL[0]}{SPECIAL[0]}hi", add_special_tokens=False))


FORCED = Conversation((say("user", "hi"),), (Tool("f", "", {}),), Calling.ANY, "f")


def written(model: ServedModel, conversation: Conversation) -> str:
    """The prompt as text."""
    return model.tokenizer.decode(model.prompt(conversation))


def test_a_forced_call_is_begun_in_the_prompt(model: ServedModel) -> None:
    """Its opening is a part of the prompt, and is counted there; a thought that the template opened is closed first."""
    model = replace(model, manner=Manner(Hermes(), "think"), template=ChatTemplate(templates.HERMES, {}))
    assert written(model, FORCED).endswith('assistant\n<tool_call>\n{"name": "f", "arguments":')
    assert model.lay_out(FORCED).opening == Hermes().opening("f")
    thinking = replace(model, template=ChatTemplate(templates.THINKING, {}))
    layout = thinking.lay_out(FORCED)
    assert (layout.thinking, layout.opening) == (False, Hermes().opening("f"))
    assert "<think>\n</think>\n\n<tool_call>" in written(thinking, FORCED)
    free = thinking.lay_out(replace(FORCED, calling=Calling.AUTO))
    assert (free.thinking, free.opening) == (True, "")


def test_conversations_with_tools_may_have_a_template_of_their_own(model: ServedModel) -> None:
    """Some checkpoints keep two."""
    model = replace(model, tool_template=ChatTemplate("tools", {}), manner=Manner(Mistral(newer=False)))
    assert written(model, replace(FORCED, calling=Calling.AUTO)) == "tools"
    assert written(model, replace(FORCED, tools=())) != "tools"
