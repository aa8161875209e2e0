import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any
from urllib.parse import quote

import pytest
import pytest_asyncio
from botocore.exceptions import ClientError

from tests.gateway.house import House, converse_body, open_house
from twinfer.core.config import Config, GatewayConfig, ModelConfig, ProfileConfig
from twinfer.core.ids import ModelId
from twinfer.core.service import Tier
from twinfer.gateway.books import Books
from twinfer.gateway.metering import Meter
from twinfer.gateway.models import ServedModel
from twinfer.gateway.office import Office
from twinfer.usage.record import UsageRecord

pytestmark = pytest.mark.asyncio(loop_scope="module")

MODEL = "twinfer.tiny-v1:0"
ARN = "arn:aws:bedrock:us-east-1:000000000000:inference-profile/us."


async def ask(house: House, operation: str, **arguments: Any) -> dict[str, Any]:
    """What boto3 returns."""
    answer = await asyncio.to_thread(lambda: getattr(house.boto3("bedrock"), operation)(**arguments))
    return dict(answer)


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def european(model: ServedModel) -> AsyncIterator[House]:
    """A gateway elsewhere, with three models."""
    others = [replace(model, id=ModelId(f"twinfer.other{n}-v1:0"), name=f"Other {n}.5 (b)") for n in range(2)]
    config = Config(model=(ModelConfig(id=model.id),), gateway=GatewayConfig(region="eu-west-1"))
    async with open_house(model, config, others=others) as house:
        yield house


async def test_each_model_has_the_profile_of_its_geography(house: House) -> None:
    """Which is one more name for it."""
    (profile,) = (await ask(house, "list_inference_profiles"))["inferenceProfileSummaries"]
    assert (f"us.{MODEL}", ARN + MODEL, "SYSTEM_DEFINED") == (
        profile["inferenceProfileId"],
        profile["inferenceProfileArn"],
        profile["type"],
    )
    assert profile["models"] == [{"modelArn": f"arn:aws:bedrock:us-east-1::foundation-model/{MODEL}"}]
    assert profile["createdAt"].timestamp() == house.model.created
    for name in (profile["inferenceProfileId"], profile["inferenceProfileArn"]):
        found = await ask(house, "get_inference_profile", inferenceProfileIdentifier=name)
        found.pop("ResponseMetadata")
        assert profile == found


async def test_an_application_s_profile(model: ServedModel) -> None:
    """It is listed, found and served under its ARN for its tenant alone, as it says unless a request says otherwise."""
    profiles = (
        ProfileConfig("ours", model.id, tier=Tier.FLEX, first_token_ms=0.000001),
        ProfileConfig("theirs", model.id, "acme"),
    )
    records = list[UsageRecord]()
    config = Config(model=(ModelConfig(id=model.id),), profile=profiles)
    arn = "arn:aws:bedrock:us-east-1:000000000000:application-inference-profile/"
    async with open_house(model, config, office=Office(Books(records.append), Meter())) as house:
        house.says("Hello")
        listed = await ask(house, "list_inference_profiles", typeEquals="APPLICATION")
        (ours,) = listed["inferenceProfileSummaries"]
        assert (ours["inferenceProfileId"], ours["inferenceProfileArn"], ours["type"]) == (
            "ours",
            f"{arn}ours",
            "APPLICATION",
        )
        for name in ("ours", f"{arn}ours"):
            found = await ask(house, "get_inference_profile", inferenceProfileIdentifier=name)
            assert found["inferenceProfileArn"] == f"{arn}ours"
        client = house.boto3()
        for tier in ({}, {"serviceTier": {"type": "priority"}}):
            await asyncio.to_thread(lambda tier=tier: client.converse(modelId=f"{arn}ours", **converse_body(), **tier))
        assert [(record.profile, record.tier, record.model) for record in records] == [
            ("ours", "flex", model.id),
            ("ours", "priority", model.id),
        ]
        with pytest.raises(client.exceptions.ResourceNotFoundException):
            await asyncio.to_thread(lambda: client.converse(modelId=f"{arn}theirs", **converse_body()))
        late = 'twinfer_gateway_late_first_tokens_total{profile="ours"} 2.0'
        assert late in (await house.http.get("/metrics")).text


async def test_a_promise_that_cannot_be_kept_is_refused_at_once(model: ServedModel) -> None:
    """With 503 and the time to come back; nothing is begun, and calls that were promised nothing are not concerned."""
    arn = "arn:aws:bedrock:us-east-1:000000000000:application-inference-profile/quick"
    config = Config(model=(ModelConfig(id=model.id),), profile=(ProfileConfig("quick", model.id, first_token_ms=500),))
    async with open_house(model, config) as house:
        house.says("Hello")
        house.dispatcher.foreseen_s = 4.5
        refused = await house.http.post(f"/model/{quote(arn, safe='')}/converse", json=converse_body())
        headers = [refused.headers[name] for name in ("x-amzn-errortype", "x-amz-retry-after", "retry-after")]
        assert (503, ["ServiceUnavailableException", "4000", "4"]) == (refused.status_code, headers)
        assert [] == house.dispatcher.generations
        assert 200 == (await house.http.post(f"/model/{model.id}/converse", json=converse_body())).status_code
        house.dispatcher.foreseen_s = 0.4
        kept = await house.http.post(f"/model/{quote(arn, safe='')}/converse", json=converse_body())
        assert 200 == kept.status_code
        series = 'twinfer_gateway_refused_total{reason="promise",tier="default"} 1.0'
        assert series in (await house.http.get("/metrics")).text


async def test_without_any_there_are_no_application_profiles(house: House) -> None:
    """None is listed, and an ARN of one is of nothing."""
    listed = await ask(house, "list_inference_profiles", typeEquals="APPLICATION")
    assert listed["inferenceProfileSummaries"] == []


@pytest.mark.parametrize(
    "name",
    [
        MODEL,
        "us.foo.bar-v1:0",
        "abc123",
        f"arn:aws:bedrock:us-east-1:000000000000:application-inference-profile/us.{MODEL}",
        "arn:aws:bedrock:us-east-1:000000000000:application-inference-profile/abc123def456",
    ],
)
async def test_what_is_no_profile_is_not_found(house: House, name: str) -> None:
    """Not even a model by its plain id."""
    client = house.boto3("bedrock")
    with pytest.raises(client.exceptions.ResourceNotFoundException, match="does not exist"):
        await ask(house, "get_inference_profile", inferenceProfileIdentifier=name)


async def test_a_profile_keeps_the_name_it_was_asked_by(house: House) -> None:
    """An alias behind any prefix is a profile of the model."""
    name = "apac.meta.llama3-1-8b-instruct-v1:0"
    profile = await ask(house, "get_inference_profile", inferenceProfileIdentifier=name)
    assert name == profile["inferenceProfileId"]
    assert profile["models"][0]["modelArn"].endswith(f"/{MODEL}")


async def test_lists_come_in_pages(european: House) -> None:
    """boto3's paginator sees every profile once; names keep to the letters that are allowed."""
    client = european.boto3("bedrock")
    paginator = client.get_paginator("list_inference_profiles").paginate(PaginationConfig={"PageSize": 2})
    pages = await asyncio.to_thread(lambda: [page["inferenceProfileSummaries"] for page in paginator])
    assert [2, 1] == [len(page) for page in pages]
    profiles = [profile for page in pages for profile in page]
    assert [f"eu.{name}" for name in (MODEL, "twinfer.other0-v1:0", "twinfer.other1-v1:0")] == [
        profile["inferenceProfileId"] for profile in profiles
    ]
    assert profiles[1]["inferenceProfileName"] == "eu Other 0 5 b"


@pytest.mark.parametrize("arguments", [{"nextToken": "x"}, {"nextToken": "9" * 40}])
async def test_a_token_that_was_never_given_is_refused(house: House, arguments: dict[str, Any]) -> None:
    """As the caller's mistake."""
    with pytest.raises(ClientError, match="nextToken") as caught:
        await ask(house, "list_inference_profiles", **arguments)
    assert caught.value.response["Error"]["Code"] == "ValidationException"
