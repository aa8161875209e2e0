"""The proxy of vLLM's pair: prompt to one server, KV's address and answer from there to the other."""

import contextlib
import json
import socket
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import uvicorn
from bench.published.pair_proxy import KEEP_KV, for_prefill, proxy
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

BODY = {"model": "m", "prompt": "a b", "max_tokens": 3, "stream": True, "stream_options": {"include_usage": True}}


@contextlib.contextmanager
def serving(app: Starlette) -> Iterator[str]:
    """The address of an application in a thread."""
    server = uvicorn.Server(uvicorn.Config(app, log_level="error", lifespan="on"))
    with socket.create_server(("127.0.0.1", 0)) as sock:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [sock]})
        thread.start()
        try:
            yield f"http://127.0.0.1:{sock.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()


def instance(asked: list[dict[str, Any]], status: int = 200) -> Starlette:
    """A server that notes what it is asked, and answers with KV's address or in pieces."""

    async def complete(request: Request) -> Response:
        body = await request.json()
        asked.append(body | {"id": request.headers["x-request-id"]})
        if status != 200:
            return JSONResponse({"error": "full"}, status)
        if not body["stream"]:
            return JSONResponse({"kv_transfer_params": {"remote_block_ids": [7]}})
        return StreamingResponse(pieces(), media_type="text/event-stream")

    async def pieces() -> AsyncIterator[bytes]:
        for word in ("one", "two"):
            yield f"data: {word}\n\n".encode()

    async def models(request: Request) -> Response:
        return JSONResponse({"data": [{"id": "m"}]})

    return Starlette(routes=[Route("/v1/completions", complete, methods=["POST"]), Route("/v1/models", models)])


def test_both_are_asked() -> None:
    """Prefill draws one token and keeps KV, decode gets its address and all else as it was; the same id at both."""
    first: list[dict[str, Any]] = []
    second: list[dict[str, Any]] = []
    with (
        serving(instance(first)) as prefill,
        serving(instance(second)) as decode,
        serving(proxy(prefill, decode)) as url,
        httpx.Client(base_url=url) as client,
    ):
        answer = client.post("/v1/completions", json=BODY)
        models = client.get("/v1/models").json()
    assert ("data: one\n\ndata: two\n\n", "m") == (answer.text, models["data"][0]["id"])
    assert first[0].pop("id") == second[0].pop("id")
    assert [for_prefill(BODY)] == first
    assert [BODY | {"kv_transfer_params": {"remote_block_ids": [7]}}] == second


def test_a_refusal() -> None:
    """What the prefill server refuses, clients hear, and the decode server does not."""
    second: list[dict[str, Any]] = []
    with (
        serving(instance([], 503)) as prefill,
        serving(instance(second)) as decode,
        serving(proxy(prefill, decode)) as url,
    ):
        answer = httpx.post(f"{url}/v1/completions", json=BODY)
    assert (503, {"error": "full"}, []) == (answer.status_code, json.loads(answer.text), second)


def test_the_prompt_alone() -> None:
    """Nothing is streamed from the prefill server, so no usage can be asked for in a stream."""
    asked = for_prefill(BODY)
    assert (False, 1, KEEP_KV) == (asked["stream"], asked["max_tokens"], asked["kv_transfer_params"])
    assert "stream_options" not in asked
