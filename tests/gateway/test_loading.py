import json
from pathlib import Path
from typing import Any

import pytest

from tests.gateway.house import EOS, TEMPLATE, checkpoint
from twinfer.core.config import ModelConfig
from twinfer.core.errors import CheckpointError
from twinfer.gateway.loading import Limits, load_model
from twinfer.gateway.models import SamplingDefaults, ServedModel
from twinfer.gateway.text.conversation import Conversation, Tool, say
from twinfer.gateway.text.formats.hermes import Hermes
from twinfer.gateway.text.formats.mistral import Mistral
from twinfer.gateway.text.manner import Manner

HELLO = Conversation((say("user", "hello"),))


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """One to change."""
    return checkpoint(tmp_path)


def change(directory: Path, name: str, **fields: Any) -> None:
    """Set fields of a JSON file; ``None`` removes one."""
    path = directory / name
    old = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps({k: v for k, v in (old | fields).items() if v is not None}))


def load(directory: Path, limits: Limits | None = None, **config: Any) -> ServedModel:
    """Load it under the name acme.model-v1:0."""
    return load_model(ModelConfig(id="acme.model-v1:0", **config), directory, limits)


def test_a_checkpoint_says_what_the_gateway_needs(directory: Path) -> None:
    """Limits, stop tokens, template and names come from its files and the id."""
    model = load(directory)
    assert (model.max_context_tokens, model.vocab_size, model.eos_token_ids) == (512, 407, (EOS,))
    assert ("model-v1:0", "acme", SamplingDefaults()) == (model.name, model.provider, model.defaults)
    prompt = "<|bos|><|user|>hello<|assistant|>"
    assert model.tokenizer.encode(prompt, add_special_tokens=False) == model.prompt(HELLO)


def test_configured_names_win_and_fit_bedrock_s_limit(directory: Path) -> None:
    """Names are for people, at most 20 characters."""
    model = load(directory, name="A name of more than twenty characters", provider="Somebody")
    assert (model.name, model.provider) == ("A name of more than ", "Somebody")


def test_the_tightest_bound_on_the_context_holds(directory: Path) -> None:
    """Configuration narrows, an engine's own limit replaces the checkpoint's."""
    assert load(directory, max_context_tokens=100).max_context_tokens == 100
    assert load(directory, max_context_tokens=9000).max_context_tokens == 512
    assert load(directory, Limits(max_context_tokens=64), max_context_tokens=100).max_context_tokens == 64
    assert load(directory, Limits(vocab_size=1000)).vocab_size == 1000
    change(directory, "config.json", max_position_embeddings=None)
    with pytest.raises(CheckpointError, match="set max_context_tokens of model acme"):
        load(directory)


def test_generation_config_decides_defaults_and_stop_tokens(directory: Path) -> None:
    """It knows better than the model's shape which tokens end an answer."""
    change(directory, "generation_config.json", temperature=0.6, top_k=40, eos_token_id=[3, 1])
    model = load(directory)
    assert (SamplingDefaults(temperature=0.6, top_k=40), (3, 1)) == (model.defaults, model.eos_token_ids)


def test_the_tokenizer_s_own_stop_token_is_the_last_resort(directory: Path) -> None:
    """Some checkpoints name it nowhere else; some nowhere at all."""
    change(directory, "config.json", eos_token_id=None)
    assert load(directory).eos_token_ids == (EOS,)
    change(directory, "tokenizer_config.json", eos_token=None)
    assert load(directory).eos_token_ids == ()


def test_templates_are_found_wherever_they_are_kept(directory: Path) -> None:
    """A file of its own wins; among named ones ``default`` does; without any, texts are put one after another."""
    change(directory, "tokenizer_config.json", chat_template=None)
    assert load(directory).tokenizer.encode("hello", add_special_tokens=True) == load(directory).prompt(HELLO)
    named = [{"name": "tool_use", "template": "tools"}, {"name": "default", "template": TEMPLATE}]
    change(directory, "tokenizer_config.json", chat_template=named)
    assert len(load(directory).prompt(HELLO)) == 4
    (directory / "chat_template.jinja").write_text("<|user|>")
    assert load(directory).prompt(HELLO) == (2,)


def test_a_shape_inside_another_is_found(directory: Path) -> None:
    """Checkpoints with several parts keep the language model's shape under text_config."""
    shape = {"max_position_embeddings": 128, "vocab_size": 500}
    change(directory, "config.json", text_config=shape, max_position_embeddings=None, vocab_size=None)
    assert (load(directory).max_context_tokens, load(directory).vocab_size) == (128, 500)


@pytest.mark.parametrize(
    ("name", "text"), [("config.json", "["), ("tokenizer_config.json", "[]"), ("generation_config.json", "\xff")]
)
def test_a_broken_file_is_named(directory: Path, name: str, text: str) -> None:
    """The error says which."""
    (directory / name).write_text(text, "latin-1")
    with pytest.raises(CheckpointError, match=name.replace(".", r"\.")):
        load(directory)


def test_a_default_out_of_place_is_named(directory: Path) -> None:
    """A sampling default that is no number is the checkpoint's fault, and found at start."""
    change(directory, "generation_config.json", temperature="hot")
    with pytest.raises(CheckpointError, match="temperature"):
        load(directory)


def test_calls_and_thoughts_are_read_as_the_template_shows_them(directory: Path) -> None:
    """Or as the operator says; a template for tools only tells more than the one for everything."""
    assert load(directory).manner == Manner()
    assert isinstance(load(directory, tool_format="mistral").manner.tools, Mistral)
    named = [{"name": "tool_use", "template": "<tool_call>"}, {"name": "default", "template": TEMPLATE}]
    change(directory, "tokenizer_config.json", chat_template=named)
    model = load(directory, reasoning_format="think")
    assert (isinstance(model.manner.tools, Hermes), model.manner.reasoning) == (True, "think")
    tools = Conversation(HELLO.messages, (Tool("f", "", {}),))
    assert model.tokenizer.decode(model.prompt(tools)) == "<tool_call>"
    assert load(directory).prompt(HELLO) == model.prompt(HELLO)
