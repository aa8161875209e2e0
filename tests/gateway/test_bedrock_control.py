import asyncio
from typing import Any

import botocore.session
import pytest
from botocore.exceptions import ClientError

from tests.gateway.house import House
from tests.gateway.test_bedrock_converse import check_shape

pytestmark = pytest.mark.asyncio(loop_scope="module")

MODEL = "twinfer.tiny-v1:0"


async def listed(house: House, **filters: str) -> list[dict[str, Any]]:
    """What boto3 returns."""
    client = house.boto3("bedrock")
    answer = await asyncio.to_thread(lambda: client.list_foundation_models(**filters))
    return list(answer["modelSummaries"])


async def test_models_are_listed_as_boto3_expects(house: House) -> None:
    """With its ARN, which is a name for it too."""
    summaries = await listed(house)
    service = botocore.session.get_session().get_service_model("bedrock")
    check_shape(service.operation_model("ListFoundationModels").output_shape, {"modelSummaries": summaries})
    assert [(summary["modelId"], summary["providerName"]) for summary in summaries] == [(MODEL, "Twinfer")]
    assert f"arn:aws:bedrock:us-east-1::foundation-model/{MODEL}" == summaries[0]["modelArn"]
    assert house.model is not None


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


async def test_a_filter_that_does_not_exist_is_refused(house: House) -> None:
    """By its name."""
    with pytest.raises(ClientError, match="byOutputModality") as caught:
        await listed(house, byOutputModality="SMELL")
    assert caught.value.response["Error"]["Code"] == "ValidationException"
