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
        "us.meta.llama3-1-8b-instruct-v1:0",
        "us-gov.twinfer.tiny-v1:0",
        "global.twinfer.tiny-v1:0",
        "arn:aws:bedrock:us-east-1::foundation-model/twinfer.tiny-v1:0",
        "arn:aws-us-gov:bedrock:us-gov-west-1:123456789012:inference-profile/us.twinfer.tiny-v1:0",
    ],
)
def test_a_model_answers_to_all_its_names(model: ServedModel, name: str) -> None:
    """Id, alias, geographic profile and ARN mean the same."""
    assert model is ModelRegistry([model]).find(name)


@pytest.mark.parametrize(
    "name",
    [
        "",
        "*",
        "us.",
        "tiny-v1:0",
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
