"""Bedrock's CountTokens: the prompt tokens that a request would be answered with, counted and nothing else."""

import base64
import binascii

import msgspec
from starlette.responses import Response

from twinfer.gateway.dialects.bedrock_invoke import read_native
from twinfer.gateway.dialects.converse_blocks import one_member
from twinfer.gateway.dialects.converse_request import read_converse_fields
from twinfer.gateway.dialects.native import Addressed
from twinfer.gateway.dialects.reader import Reader, read_json
from twinfer.gateway.exchange import Call, Context
from twinfer.gateway.prepare import Asked, count


async def count_tokens(call: Call, context: Context) -> Response:
    """CountTokens, for the body of a Converse or of an InvokeModel request."""
    Reader(call.model, "modelId").string(at_most=256)
    asked = await call.read(lambda body: _read(call, body))
    body = {"inputTokens": await count(call, context, asked)}
    return Response(msgspec.json.encode(body), media_type="application/json")


def _read(call: Call, body: bytes) -> Asked:
    kind, request = one_member(read_json(body).need("input"), ("converse", "invokeModel"))
    return _converse(call, request) if kind == "converse" else _native(call, request)


def _converse(call: Call, request: Reader) -> Asked:
    return Asked(call.model, read_converse_fields(request).conversation)


def _native(call: Call, request: Reader) -> Asked:
    encoded = request.need("body")
    try:
        body = base64.b64decode(encoded.string(), validate=True)
    except (binascii.Error, ValueError):
        raise encoded.violation("Member must be base64") from None
    return read_native(body, Addressed(call.model, call.request_id, created=0, streamed=_says_stream(body))).asked


def _says_stream(body: bytes) -> bool:
    """Bodies of either operation may be counted."""
    return read_json(body).mapping().get("stream") is True
