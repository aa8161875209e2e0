import asyncio
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.gateway.house import House

pytestmark = pytest.mark.asyncio(loop_scope="module")

MODEL = "twinfer.tiny-v1:0"
ARN = f"arn:aws:bedrock:us-east-1::foundation-model/{MODEL}"


async def ask(house: House, operation: str, **arguments: str) -> dict[str, Any]:
    """What boto3 returns."""
    answer = await asyncio.to_thread(lambda: getattr(house.boto3("bedrock"), operation)(**arguments))
    return dict(answer)


async def listed(house: House, **filters: str) -> list[dict[str, Any]]:
    """All that match."""
    return list((await ask(house, "list_foundation_models", **filters))["modelSummaries"])


async def test_models_are_listed_with_their_names(house: House) -> None:
    """With its ARN, which is a name for it too."""
    summaries = await listed(house)
    assert [(MODEL, "Twinfer", ARN)] == [
        (summary["modelId"], summary["providerName"], summary["modelArn"]) for summary in summaries
    ]


@pytest.mark.parametrize(
    ("filters", "found"),
    [
        ({"byProvider": "Twinfer", "byOutputModality": "TEXT", "byInferenceType": "ON_DEMAND"}, 1),
        ({"byProvider": "Somebody"}, 0),
        ({"byOutputModality": "IMAGE"}, 0),
        ({"byInferenceType": "PROVISIONED"}, 0),
        ({"byCustomizationType": "FINE_TUNING"}, 0),
    ],
)
async def test_filters_narrow_the_list(house: House, filters: dict[str, str], found: int) -> None:
    """All models here are text models on demand that cannot be customised."""
    assert found == len(await listed(house, **filters))


@pytest.mark.parametrize("filters", [{"byOutputModality": "SMELL"}, {"byProvider": "no/body"}])
async def test_a_filter_that_does_not_exist_is_refused(house: House, filters: dict[str, str]) -> None:
    """By its name."""
    with pytest.raises(ClientError, match=next(iter(filters))) as caught:
        await listed(house, **filters)
    assert caught.value.response["Error"]["Code"] == "ValidationException"


@pytest.mark.parametrize("name", [MODEL, ARN, "meta.llama3-1-8b-instruct-v1:0", "meta.llama3-1-8b-instruct"])
async def test_a_model_is_described_under_any_of_its_names(house: House, name: str) -> None:
    """The description is the list's, and carries the canonical id."""
    details = (await ask(house, "get_foundation_model", modelIdentifier=name))["modelDetails"]
    assert (await listed(house))[0] == details


async def test_a_served_model_is_available(house: House) -> None:
    """Nothing has to be agreed to or paid for."""
    answer = await ask(house, "get_foundation_model_availability", modelId="meta.llama3-1-8b-instruct-v1:0")
    answer.pop("ResponseMetadata")
    assert answer == {
        "modelId": MODEL,
        "agreementAvailability": {"status": "AVAILABLE"},
        "authorizationStatus": "AUTHORIZED",
        "entitlementAvailability": "AVAILABLE",
        "regionAvailability": "AVAILABLE",
    }


@pytest.mark.parametrize(
    ("operation", "argument"),
    [("get_foundation_model", "modelIdentifier"), ("get_foundation_model_availability", "modelId")],
)
async def test_a_missing_model_is_a_missing_resource(house: House, operation: str, argument: str) -> None:
    """Whereas the runtime calls an unknown identifier invalid."""
    client = house.boto3("bedrock")
    with pytest.raises(client.exceptions.ResourceNotFoundException, match=r"foo\.bar"):
        await ask(house, operation, **{argument: "foo.bar-v1:0"})
