"""Bedrock's control plane: which foundation models there are. All of them are text models on demand."""

from typing import Any

import msgspec
from starlette.responses import Response

from twinfer.core.errors import UnknownModel
from twinfer.gateway.dialects.reader import Reader
from twinfer.gateway.errors import UnknownResource
from twinfer.gateway.exchange import Call, Context
from twinfer.gateway.models import ServedModel

_FILTERS = {
    "byCustomizationType": ("FINE_TUNING", "CONTINUED_PRE_TRAINING", "DISTILLATION"),
    "byOutputModality": ("TEXT", "IMAGE", "EMBEDDING"),
    "byInferenceType": ("ON_DEMAND", "PROVISIONED"),
}
_OURS = {"byOutputModality": "TEXT", "byInferenceType": "ON_DEMAND"}
"""What every served model is; none can be customised."""


async def list_foundation_models(call: Call, context: Context) -> Response:
    """ListFoundationModels: the first configured first; not paged."""
    wanted = {
        name: Reader(call.query[name], name).one_of(words) for name, words in _FILTERS.items() if name in call.query
    }
    provider = call.query.get("byProvider")
    if provider is not None:
        Reader(provider, "byProvider").string(pattern="[A-Za-z0-9- ]{1,63}")
    matching = all(_OURS.get(name) == word for name, word in wanted.items())
    summaries = [
        _details(model, context.config.gateway.region)
        for model in context.models
        if matching and provider in (None, model.provider)
    ]
    return _json({"modelSummaries": summaries})


async def get_foundation_model(call: Call, context: Context) -> Response:
    """GetFoundationModel, by any of a model's names."""
    return _json({"modelDetails": _details(_find(call, context), context.config.gateway.region)})


async def get_foundation_model_availability(call: Call, context: Context) -> Response:
    """GetFoundationModelAvailability: a model that is served needs no agreement and no entitlement."""
    return _json(
        {
            "modelId": _find(call, context).id,
            "agreementAvailability": {"status": "AVAILABLE"},
            "authorizationStatus": "AUTHORIZED",
            "entitlementAvailability": "AVAILABLE",
            "regionAvailability": "AVAILABLE",
        }
    )


def foundation_model_arn(model: ServedModel, region: str) -> str:
    """The ARN, which is a name of the model too."""
    return f"arn:aws:bedrock:{region}::foundation-model/{model.id}"


def _find(call: Call, context: Context) -> ServedModel:
    """The control plane answers 404 where the runtime says that an identifier is invalid."""
    try:
        return context.models.find(call.model)
    except UnknownModel as error:
        raise UnknownResource(f"Could not resolve the foundation model from the identifier '{call.model}'.") from error


def _details(model: ServedModel, region: str) -> dict[str, Any]:
    return {
        "modelArn": foundation_model_arn(model, region),
        "modelId": model.id,
        "modelName": model.name,
        "providerName": model.provider,
        "inputModalities": ["TEXT"],
        "outputModalities": ["TEXT"],
        "responseStreamingSupported": True,
        "customizationsSupported": [],
        "inferenceTypesSupported": ["ON_DEMAND"],
        "modelLifecycle": {"status": "ACTIVE"},
    }


def _json(body: dict[str, Any]) -> Response:
    return Response(msgspec.json.encode(body), media_type="application/json")
