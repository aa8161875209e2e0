"""Bedrock's control plane: which models there are."""

from typing import Any

import msgspec
from starlette.responses import Response

from twinfer.gateway.dialects.reader import Reader
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
    matching = all(_OURS.get(name) == word for name, word in wanted.items())
    summaries = [
        _summary(model, context.config.gateway.region)
        for model in context.models
        if matching and provider in (None, model.provider)
    ]
    return Response(msgspec.json.encode({"modelSummaries": summaries}), media_type="application/json")


def _summary(model: ServedModel, region: str) -> dict[str, Any]:
    return {
        "modelArn": f"arn:aws:bedrock:{region}::foundation-model/{model.id}",
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
