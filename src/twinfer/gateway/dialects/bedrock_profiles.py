"""Bedrock's control plane: inference profiles. Each model has the one of the region's geography; a tenant may have some
for its applications.

A profile's id is a model's name behind a geographic prefix, such as ``us.meta.llama3-1-8b-instruct-v1:0``.
"""

import contextlib
import re
from datetime import UTC, datetime
from typing import Any

import msgspec
from starlette.responses import Response

from twinfer.core.config import ProfileConfig
from twinfer.core.errors import InvalidRequest, UnknownModel
from twinfer.gateway.dialects.bedrock_models import foundation_model_arn
from twinfer.gateway.dialects.reader import Reader
from twinfer.gateway.errors import UnknownResource
from twinfer.gateway.exchange import Call, Context
from twinfer.gateway.models import ServedModel
from twinfer.gateway.names import GEOGRAPHIC_PREFIXES
from twinfer.gateway.profiles import arn_of, find_profile, owned

_GEOGRAPHIES = (("us-gov-", "us-gov."), ("us-", "us."), ("eu-", "eu."), ("ap-", "apac."))
"""How a region's name begins, and its profiles' ids."""
_ARN = re.compile(r"arn:aws[a-z-]*:bedrock:[a-z0-9-]*:[0-9]*:(application-)?inference-profile/(.+)")
_ID = re.compile(r"[a-zA-Z0-9-:.]{1,64}")
_TYPES = ("SYSTEM_DEFINED", "APPLICATION")
_MAX_PAGE = 1000


async def list_inference_profiles(call: Call, context: Context) -> Response:
    """ListInferenceProfiles, in pages; the token is the number of the next page's first profile."""
    wanted = Reader(call.query.get("type", _TYPES[0]), "type").one_of(_TYPES)
    limit = _whole_number(call, "maxResults", _MAX_PAGE, 1, _MAX_PAGE)
    first = _whole_number(call, "nextToken", 0, 0, 2**31)
    prefix = _geography(context.config.gateway.region)
    if wanted == "SYSTEM_DEFINED":
        found = [_profile(prefix, model.id, model, context) for model in context.models]
    else:
        found = [_application(profile, context) for profile in owned(context.config.profile, call.tenant)]
    body: dict[str, Any] = {"inferenceProfileSummaries": found[first : first + limit]}
    if first + limit < len(found):
        body["nextToken"] = str(first + limit)
    return Response(msgspec.json.encode(body), media_type="application/json")


async def get_inference_profile(call: Call, context: Context) -> Response:
    """GetInferenceProfile, by id or ARN, under any name of the model and with any geographic prefix."""
    profiles, gateway = context.config.profile, context.config.gateway
    by_id = {profile.id: arn_of(profile, gateway.region, gateway.account) for profile in profiles}
    own = None
    with contextlib.suppress(UnknownModel):
        own = find_profile(profiles, by_id.get(call.model, call.model), call.tenant)
    if own is not None:
        return Response(msgspec.json.encode(_application(own, context)), media_type="application/json")
    arn = _ARN.fullmatch(call.model)
    identifier = arn[2] if arn else call.model
    prefix = next((prefix for prefix in GEOGRAPHIC_PREFIXES if identifier.startswith(prefix)), None)
    try:
        if prefix is None or (arn and arn[1]) or not _ID.fullmatch(identifier):
            raise UnknownModel("It is not the id of a geography's profile.")
        name = identifier.removeprefix(prefix)
        body = _profile(prefix, name, context.models.find(name), context)
    except UnknownModel as error:
        raise UnknownResource(f"The inference profile '{call.model}' does not exist; list those that do.") from error
    return Response(msgspec.json.encode(body), media_type="application/json")


def _application(profile: ProfileConfig, context: Context) -> dict[str, Any]:
    """A tenant's own, in the same shape."""
    region, account = context.config.gateway.region, context.config.gateway.account
    return {
        **_profile("", profile.model, context.models.find(profile.model), context),
        "inferenceProfileName": profile.id.replace("-", " ").strip() or profile.id,
        "description": f"Tier {profile.tier} with latency {profile.latency}.",
        "inferenceProfileArn": arn_of(profile, region, account),
        "inferenceProfileId": profile.id,
        "type": "APPLICATION",
    }


def _profile(prefix: str, name: str, model: ServedModel, context: Context) -> dict[str, Any]:
    region, account = context.config.gateway.region, context.config.gateway.account
    created = datetime.fromtimestamp(model.created, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    title = re.sub("[^0-9a-zA-Z]+", " ", f"{prefix} {model.name}").strip()
    return {
        "inferenceProfileName": title[:64].strip(),
        "description": f"All requests stay in {region}.",
        "inferenceProfileArn": f"arn:aws:bedrock:{region}:{account}:inference-profile/{prefix}{name}",
        "inferenceProfileId": f"{prefix}{name}",
        "models": [{"modelArn": foundation_model_arn(model, region)}],
        "status": "ACTIVE",
        "type": "SYSTEM_DEFINED",
        "createdAt": created,
        "updatedAt": created,
    }


def _geography(region: str) -> str:
    return next((prefix for start, prefix in _GEOGRAPHIES if region.startswith(start)), "global.")


def _whole_number(call: Call, name: str, default: int, at_least: int, at_most: int) -> int:
    """A query parameter."""
    text = call.query.get(name)
    if text is None:
        return default
    if not (text.isascii() and text.isdecimal() and len(text) < 12):
        raise InvalidRequest(f"Value '{text[:100]}' at '{name}' is not valid; use one that this API gave you.", name)
    return Reader(int(text), name).integer(at_least, at_most)
