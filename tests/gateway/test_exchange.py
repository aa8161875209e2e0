"""Long bodies are read beside the event loop."""

import threading

import pytest
from starlette.datastructures import Headers, QueryParams

from tests.gateway.house import House, caller, chat_body, converse_body
from twinfer.gateway.dialects import reader
from twinfer.gateway.exchange import Call

pytestmark = pytest.mark.asyncio(loop_scope="module")

MODEL = "twinfer.tiny-v1:0"
LONG = "hello " * 20_000
BODIES = {
    f"/model/{MODEL}/converse": converse_body(LONG),
    f"/model/{MODEL}/converse-stream": converse_body(LONG),
    f"/model/{MODEL}/invoke": {"prompt": LONG},
    f"/model/{MODEL}/invoke-with-response-stream": {"prompt": LONG},
    f"/model/{MODEL}/count-tokens": {"input": {"converse": converse_body(LONG)}},
    "/v1/chat/completions": chat_body(MODEL, LONG),
    "/v1/completions": {"model": MODEL, "prompt": LONG},
    "/v1/responses": {"model": MODEL, "input": LONG},
}


def call(body: bytes) -> Call:
    """One with this body."""
    return Call("id", caller("t"), "", Headers(), QueryParams(), body, secure=False, arrived_s=0.0)


@pytest.mark.parametrize(("size", "beside"), [(0, False), (65_535, False), (65_536, True)])
async def test_long_bodies_are_read_beside_the_event_loop(size: int, beside: bool) -> None:
    """Short ones in it, because a thread costs more than they do."""
    loop = threading.get_ident()
    assert beside is await call(b" " * size).read(lambda body: threading.get_ident() != loop)


@pytest.mark.parametrize("path", BODIES)
async def test_every_door_reads_long_bodies_beside_the_event_loop(
    house: House, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    """So that the streams of others go on meanwhile."""
    threads = []

    class Watched(reader.Reader):
        """Notes which thread reads a body."""

        def __init__(self, value: object, path: str) -> None:
            super().__init__(value, path)
            threads.append(threading.get_ident())

    monkeypatch.setattr(reader, "Reader", Watched)
    assert (await house.http.post(path, json=BODIES[path])).status_code in (200, 400)
    assert threads
    assert threading.get_ident() not in threads
