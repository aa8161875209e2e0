from dataclasses import replace

import pytest

from twinfer.core.errors import UnknownModel
from twinfer.core.ids import ModelId
from twinfer.gateway.models import ModelRegistry, ServedModel


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
