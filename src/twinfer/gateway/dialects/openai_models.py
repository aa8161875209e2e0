"""OpenAI's list of models."""

from typing import Any

import msgspec
from starlette.responses import Response

from twinfer.gateway.exchange import Call, Context
from twinfer.gateway.models import ServedModel


async def list_models(call: Call, context: Context) -> Response:
    """All served models, the first configured first."""
    return _json({"object": "list", "data": [_entry(model) for model in context.models]})


async def get_model(call: Call, context: Context) -> Response:
    """One model, by any of its names."""
    return _json(_entry(context.models.find(call.model)))


def _entry(model: ServedModel) -> dict[str, Any]:
    return {"id": model.id, "object": "model", "created": model.created, "owned_by": model.provider}


def _json(body: dict[str, Any]) -> Response:
    return Response(msgspec.json.encode(body), media_type="application/json")
