"""In front of a pair of vLLM servers: each prompt to one, its KV and its answer to the other.

1. The prefill server gets the request with one token to draw, and says where the KV lies.
2. The decode server gets the request with that, and its answer is passed on as it comes.

This is what the proxy of vLLM's own examples does, for one pair.

    python -m bench.published.pair_proxy PORT PREFILL_URL DECODE_URL
"""

import contextlib
import sys
import uuid
from collections.abc import AsyncIterator
from typing import Any

import httpx
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

TIMEOUT_S = 300.0
KEEP_KV = {
    "do_remote_decode": True,
    "do_remote_prefill": False,
    "remote_engine_id": None,
    "remote_block_ids": None,
    "remote_host": None,
    "remote_port": None,
}


def for_prefill(body: dict[str, Any]) -> dict[str, Any]:
    """The request that computes a prompt and keeps its KV for somebody."""
    kept = {name: value for name, value in body.items() if name != "stream_options"}
    return kept | {"kv_transfer_params": KEEP_KV, "stream": False, "max_tokens": 1}


def proxy(prefill: str, decode: str) -> Starlette:
    """The application in front of two servers."""
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)

    @contextlib.asynccontextmanager
    async def clients(app: Starlette) -> AsyncIterator[None]:
        async with (
            httpx.AsyncClient(base_url=prefill, timeout=TIMEOUT_S, limits=limits, trust_env=False) as first,
            httpx.AsyncClient(base_url=decode, timeout=TIMEOUT_S, limits=limits, trust_env=False) as second,
        ):
            app.state.prefill, app.state.decode = first, second
            yield

    async def models(request: Request) -> Response:
        found = await request.app.state.decode.get(request.url.path)
        return Response(found.content, found.status_code, media_type="application/json")

    async def generate(request: Request) -> Response:
        body, state = await request.json(), request.app.state
        headers = {"x-request-id": str(uuid.uuid4())}
        done = await state.prefill.post(request.url.path, json=for_prefill(body), headers=headers)
        if done.status_code != httpx.codes.OK:
            return Response(done.content, done.status_code, media_type="application/json")
        asked = body | {"kv_transfer_params": done.json().get("kv_transfer_params")}
        sent = state.decode.build_request("POST", request.url.path, json=asked, headers=headers)
        answer = await state.decode.send(sent, stream=True)
        return StreamingResponse(_passed_on(answer), answer.status_code, media_type=answer.headers.get("content-type"))

    routes = [
        Route("/v1/models", models),
        Route("/v1/completions", generate, methods=["POST"]),
        Route("/v1/chat/completions", generate, methods=["POST"]),
    ]
    return Starlette(routes=routes, lifespan=clients)


async def _passed_on(answer: httpx.Response) -> AsyncIterator[bytes]:
    """Every piece as it comes; a client that leaves ends the decode server's work, too."""
    try:
        async for piece in answer.aiter_raw():
            yield piece
    finally:
        await answer.aclose()


if __name__ == "__main__":
    uvicorn.run(proxy(*sys.argv[2:4]), host="127.0.0.1", port=int(sys.argv[1]), log_level="warning")
