"""What every way to ask for an answer must do, whatever it looks like on the wire."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
import pytest_asyncio

from tests.gateway.house import EOS, House, chat_body, checkpoint, chunks, converse_body, frames, open_house, post
from twinfer.core.config import ModelConfig
from twinfer.core.errors import CapacityError, EngineFailure
from twinfer.core.route import RouteKind
from twinfer.gateway.fake import Script
from twinfer.gateway.loading import load_model

pytestmark = pytest.mark.asyncio(loop_scope="module")

MODEL = "twinfer.tiny-v1:0"


@dataclass(frozen=True)
class Told:
    """What a client learns of an answer."""

    text: str
    reason: str
    prompt_tokens: int
    output_tokens: int
    cached_tokens: int
    twinfer: dict[str, Any]


@dataclass(frozen=True)
class Door:
    """One way in.

    Attributes:
        path: with the model's id where it belongs.
        body: from a prompt, a model id and a limit.
        read: what a client learns from a whole response.
        explains: the message of an error response.
    """

    name: str
    path: str
    body: Callable[[str, str, int], Any]
    read: Callable[[bytes], Told]
    explains: Callable[[Any], str]
    streams: bool


def from_converse(text: str, stop: Any, accounts: Any) -> Told:
    """Cached tokens are not input tokens."""
    usage = accounts["usage"]
    assert usage["totalTokens"] == (
        usage["inputTokens"] + usage["cacheReadInputTokens"] + usage["cacheWriteInputTokens"] + usage["outputTokens"]
    )
    return Told(
        text,
        {"end_turn": "stop", "max_tokens": "length"}[stop["stopReason"]],
        usage["inputTokens"] + usage["cacheReadInputTokens"],
        usage["outputTokens"],
        usage["cacheReadInputTokens"],
        accounts["twinfer"],
    )


def read_converse(data: bytes) -> Told:
    """One body."""
    body = msgspec.json.decode(data)
    return from_converse(body["output"]["message"]["content"][0]["text"], body, body)


def read_converse_stream(data: bytes) -> Told:
    """Event-stream frames."""
    events = frames(data)
    text = "".join(payload["delta"]["text"] for name, payload in events if name == "contentBlockDelta")
    return from_converse(text, dict(events)["messageStop"], dict(events)["metadata"])


def from_chat(text: str, reason: str, body: Any) -> Told:
    """Cached tokens are a part of the prompt's."""
    usage = body["usage"]
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
    return Told(
        text,
        reason,
        usage["prompt_tokens"],
        usage["completion_tokens"],
        usage["prompt_tokens_details"]["cached_tokens"],
        body["twinfer"],
    )


def read_chat(data: bytes) -> Told:
    """One body."""
    body = msgspec.json.decode(data)
    choice = body["choices"][0]
    return from_chat(choice["message"]["content"], choice["finish_reason"], body)


def read_chat_stream(data: bytes) -> Told:
    """Server-sent events."""
    *parts, last, done = chunks(data)
    assert done == "[DONE]"
    text = "".join(part["choices"][0]["delta"].get("content", "") for part in parts)
    return from_chat(text, parts[-1]["choices"][0]["finish_reason"], last)


def converse(text: str, model: str, limit: int) -> Any:
    """The model is in the path."""
    return converse_body(text, inferenceConfig={"maxTokens": limit})


def chat(text: str, model: str, limit: int) -> Any:
    """The model is in the body."""
    return chat_body(model, text, max_tokens=limit)


def chat_stream(text: str, model: str, limit: int) -> Any:
    """With usage, so that nothing is left out."""
    return chat(text, model, limit) | {"stream": True, "stream_options": {"include_usage": True}}


def aws_message(body: Any) -> str:
    """AWS's envelope."""
    return str(body["message"])


def openai_message(body: Any) -> str:
    """OpenAI's envelope."""
    assert {"message", "type", "param", "code"} == set(body["error"])
    return str(body["error"]["message"])


DOORS = (
    Door("Converse", "/model/{}/converse", converse, read_converse, aws_message, streams=False),
    Door("ConverseStream", "/model/{}/converse-stream", converse, read_converse_stream, aws_message, streams=True),
    Door("Chat", "/v1/chat/completions", chat, read_chat, openai_message, streams=False),
    Door("ChatStream", "/openai/v1/chat/completions", chat_stream, read_chat_stream, openai_message, streams=True),
)
any_door = pytest.mark.parametrize("door", DOORS, ids=lambda door: door.name)
streaming_door = pytest.mark.parametrize("door", [d for d in DOORS if d.streams], ids=lambda door: door.name)


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def shared_house(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[House]:
    """One gateway for all doors."""
    directory: Path = checkpoint(tmp_path_factory.mktemp("checkpoint"))
    async with open_house(load_model(ModelConfig(id=MODEL), directory)) as house:
        yield house


@pytest.fixture
def house(shared_house: House) -> House:
    """With nothing left of the test before."""
    shared_house.reset()
    return shared_house


async def ask(house: House, door: Door, text: str = "hi", model: str = MODEL, limit: int = 100) -> httpx.Response:
    """Through one door."""
    return await house.http.post(door.path.format(model), json=door.body(text, model, limit))


@contextlib.asynccontextmanager
async def asking(house: House, door: Door) -> AsyncIterator[asyncio.StreamReader]:
    """A connection on which a request has been sent; leaving the context leaves the server."""
    reader, writer = await asyncio.open_connection(*house.address)
    try:
        writer.write(post(door.path.format(MODEL), door.body("hi", MODEL, 100)))
        yield reader
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


async def started(house: House, reader: asyncio.StreamReader, door: Door) -> None:
    """Return when the request is in work."""
    if door.streams:
        await reader.readuntil(b"assistant")
    while not house.dispatcher.generations:
        await asyncio.sleep(0)


@any_door
async def test_text_and_accounts_are_the_generation_s(house: House, door: Door) -> None:
    """Every token's text once and in order, tokens counted by the engine, cached ones told apart."""
    house.says("naïve 東京 🙂 hello", cached_tokens=2)
    told = door.read((await ask(house, door)).content)
    assert (told.text, told.reason) == ("naïve 東京 🙂 hello", "stop")
    request = house.dispatcher.generations[0].request
    assert (len(request.prompt), len(house.ids(told.text)) + 1, 2) == (
        told.prompt_tokens,
        told.output_tokens,
        told.cached_tokens,
    )
    assert told.twinfer["route"] == "disaggregated"
    assert house.all_closed


@any_door
async def test_the_limit_is_exact(house: House, door: Door) -> None:
    """As many tokens as asked for, and the reason says so."""
    told = door.read((await ask(house, door, limit=3)).content)
    assert (told.output_tokens, told.reason) == (3, "length")


async def test_every_door_makes_the_same_request(house: House) -> None:
    """Same words, same tokens, same stop tokens, same defaults: only ids and seeds differ."""
    for door in DOORS:
        await ask(house, door, "What is 東京?")
    first, *others = (
        msgspec.structs.replace(
            generation.request,
            request_id="",
            sampling=msgspec.structs.replace(generation.request.sampling, seed=0),
        )
        for generation in house.dispatcher.generations
    )
    assert [first] * 3 == others


@any_door
async def test_request_ids_are_unique_and_under_both_names(house: House, door: Door) -> None:
    """Success or failure, AWS's clients and OpenAI's find it."""
    responses = [await ask(house, door), await ask(house, door), await ask(house, door, model="nobody")]
    ids = [response.headers["x-amzn-requestid"] for response in responses]
    assert len(set(ids)) == 3
    assert ids == [response.headers["x-request-id"] for response in responses]


@any_door
async def test_refusals_are_in_the_door_s_own_words(house: House, door: Door) -> None:
    """Unknown models, overlong prompts, malformed bodies: a client's mistakes, and no work for anyone."""
    for response in (
        await ask(house, door, model="nobody"),
        await ask(house, door, "word " * 1000),
        await house.http.post(door.path.format(MODEL), content=b"{"),
    ):
        assert response.status_code in (400, 404)
        assert door.explains(response.json())
    assert house.dispatcher.generations == []


@any_door
async def test_an_early_failure_has_a_status(house: House, door: Door) -> None:
    """Also when streaming: nothing was sent yet, so the client may try again."""
    house.plays(Script([], failure=CapacityError("Full.", 2.0)))
    response = await ask(house, door)
    assert (
        response.status_code,
        response.headers["retry-after"],
        door.explains(response.json()),
    ) == (503, "2", "Full.")
    assert house.all_closed


@streaming_door
async def test_a_late_failure_never_looks_like_an_end(house: House, door: Door) -> None:
    """The stream says what happened, and the connection closes in mid-body."""
    house.plays(Script([house.ids("Hello")], failure=EngineFailure("Broken.")))
    async with asking(house, door) as reader:
        data = await reader.read()
    assert b"Broken." in data
    assert not data.endswith(b"0\r\n\r\n")
    assert house.all_closed


@any_door
async def test_a_client_that_leaves_early_cancels(house: House, door: Door) -> None:
    """While the prompt is computed."""
    house.plays(Script([[70], [EOS]], gates={0: asyncio.Event()}))
    async with asking(house, door):
        while not house.dispatcher.generations:
            await asyncio.sleep(0)
    await asyncio.wait_for(house.dispatcher.generations[0].closed.wait(), 5)


@any_door
async def test_a_client_that_leaves_late_cancels(house: House, door: Door) -> None:
    """While the answer is generated."""
    house.plays(Script([[70], [EOS]], gates={1: asyncio.Event()}))
    async with asking(house, door) as reader:
        await started(house, reader, door)
    await asyncio.wait_for(house.dispatcher.generations[0].closed.wait(), 5)


@any_door
async def test_the_mode_can_be_forced(house: House, door: Door) -> None:
    """Header in, header out, and the body agrees."""
    for kind in RouteKind:
        response = await house.http.post(
            door.path.format(MODEL), json=door.body("hi", MODEL, 9), headers={"x-twinfer-route": kind.value}
        )
        assert kind.value == response.headers["x-twinfer-route"] == door.read(response.content).twinfer["route"]
    assert list(RouteKind) == house.dispatcher.forced
