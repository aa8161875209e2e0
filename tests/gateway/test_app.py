"""The application itself: routing, limits, leaving clients, slow clients, the operator's endpoints."""

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator
from dataclasses import replace
from random import Random
from typing import Any

import httpx
import msgspec
import pytest
import pytest_asyncio
from starlette.types import Message

from tests.gateway.house import EOS, House, chat_body, chunks, converse_body, frames, open_house, post
from twinfer.core.config import Config, GatewayConfig, ModelConfig, RoutingConfig
from twinfer.core.errors import EngineFailure
from twinfer.core.request import GenerationRequest
from twinfer.gateway.app import GatewayApp
from twinfer.gateway.fake import FakeDispatcher, Script
from twinfer.gateway.models import ModelRegistry, ServedModel
from twinfer.gateway.serve import build_app

pytestmark = pytest.mark.asyncio(loop_scope="module")

MODEL = "twinfer.tiny-v1:0"
STREAM = f"/model/{MODEL}/converse-stream"
SMALL = Config(
    model=(ModelConfig(id=MODEL),),
    gateway=GatewayConfig(max_body_bytes=1000, first_token_timeout_s=0.05, max_requests=1),
    routing=RoutingConfig(allow_forced=False),
)


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def strict_house(model: ServedModel) -> AsyncIterator[House]:
    """A gateway with little patience."""
    async with open_house(model, SMALL) as house:
        yield house


@pytest.fixture
def strict(strict_house: House) -> House:
    """With nothing left of the test before."""
    strict_house.reset()
    return strict_house


class Client:
    """One exchange without a socket, so that a test decides when the client reads and when it leaves."""

    def __init__(self, app: GatewayApp, path: str, body: Any, scheme: str = "http") -> None:
        self.sent: list[Message] = []
        self.left = asyncio.Event()
        self.reads = asyncio.Event()
        self.reads.set()
        self._body: bytes | None = msgspec.json.encode(body)
        scope = {
            "type": "http",
            "method": "POST",
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"",
            "headers": [],
            "scheme": scheme,
        }
        self.exchange = asyncio.create_task(app(scope, self._receive, self._send))

    @property
    def body(self) -> bytes:
        """What came so far."""
        return b"".join(message.get("body", b"") for message in self.sent)

    @property
    def ended(self) -> bool:
        """Whether the response ended as a whole one does."""
        return bool(self.sent) and self.sent[-1].get("more_body") is False

    async def _receive(self) -> Message:
        if self._body is not None:
            body, self._body = self._body, None
            return {"type": "http.request", "body": body, "more_body": False}
        await self.left.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Message) -> None:
        await self.reads.wait()
        self.sent.append(message)


class Stage:
    """An application without a server, and the script it plays."""

    def __init__(self, model: ServedModel) -> None:
        self.dispatcher = FakeDispatcher(lambda request: Script([[EOS]]))
        self.app = build_app(Config(model=(ModelConfig(id=MODEL),)), ModelRegistry([model]), self.dispatcher)

    def plays(self, script: Script) -> None:
        """Every request meets this script."""
        self.dispatcher.script = lambda request: script

    async def closed(self) -> None:
        """Return when the first generation has been closed."""
        await settled()
        await asyncio.wait_for(self.dispatcher.generations[0].closed.wait(), 5)


@pytest.fixture
def stage(model: ServedModel) -> Stage:
    """A fresh one."""
    return Stage(model)


async def settled() -> None:
    """Let everything run that can run without something from outside."""
    for _ in range(50):
        await asyncio.sleep(0)


PATHS = (f"/model/{MODEL}/converse", STREAM, "/v1/chat/completions")


@pytest.mark.parametrize("path", PATHS)
async def test_a_client_that_leaves_while_waiting_cancels_its_work(stage: Stage, path: str) -> None:
    """Before the first token, plain or streamed: the workers are told, and nothing is sent to nobody."""
    stage.plays(Script([[5], [EOS]], gates={0: asyncio.Event()}))
    client = Client(stage.app, path, converse_body() | chat_body(MODEL) if "chat" in path else converse_body())
    await settled()
    assert not stage.dispatcher.generations[0].closed.is_set()
    client.left.set()
    await asyncio.wait_for(client.exchange, 5)
    await stage.closed()
    assert client.sent == []


async def test_a_client_that_leaves_in_mid_stream_cancels_its_work(stage: Stage) -> None:
    """What was sent was sent; the rest is not computed."""
    stage.plays(Script([[5], [6], [EOS]], gates={1: asyncio.Event()}))
    client = Client(stage.app, STREAM, converse_body())
    await settled()
    assert [name for name, _ in frames(client.body)] == ["messageStart", "contentBlockDelta"]
    client.left.set()
    await asyncio.wait_for(client.exchange, 5)
    await stage.closed()
    assert not client.ended


async def test_a_client_that_leaves_while_it_does_not_read_cancels_its_work(stage: Stage) -> None:
    """A writer stuck at a full socket does not keep the workers busy."""
    stage.plays(Script([[5], [6], [EOS]]))
    client = Client(stage.app, STREAM, converse_body())
    client.reads.clear()
    await settled()
    client.left.set()
    await asyncio.wait_for(client.exchange, 5)
    await stage.closed()


def impatient(model: ServedModel, script: Script) -> tuple[GatewayApp, FakeDispatcher]:
    """An application that soon gives a silent client up."""
    config = Config(model=(ModelConfig(id=model.id),), gateway=GatewayConfig(client_timeout_s=0.01))
    dispatcher = FakeDispatcher(lambda request: script)
    return build_app(config, ModelRegistry([model]), dispatcher), dispatcher


@pytest.mark.parametrize("failure", [None, EngineFailure("broken")], ids=["answer", "failure"])
async def test_a_client_that_never_reads_is_given_up(model: ServedModel, failure: EngineFailure | None) -> None:
    """Though its connection stays: it holds neither workers nor a place here for ever."""
    app, dispatcher = impatient(model, Script([[5], [6], [EOS]], failure=failure))
    client = Client(app, STREAM, converse_body())
    client.reads.clear()
    await asyncio.wait_for(client.exchange, 5)
    await dispatcher.generations[0].closed.wait()
    assert client.sent == []


async def test_a_client_that_never_ends_its_body_is_given_up(model: ServedModel) -> None:
    """Before anything is begun for it."""

    class Unfinished(Client):
        async def _receive(self) -> Message:
            message = {"type": "http.request", "body": b"{", "more_body": True}
            self._body, first = None, self._body is not None
            return message if first else await super()._receive()

    app, dispatcher = impatient(model, Script([[EOS]]))
    client = Unfinished(app, STREAM, converse_body())
    await asyncio.wait_for(client.exchange, 5)
    assert (client.sent, dispatcher.generations) == ([], [])


async def test_a_client_that_waits_is_not_given_up(model: ServedModel) -> None:
    """It would read, but there is nothing yet."""
    gate = asyncio.Event()
    app, _ = impatient(model, Script([[5], [6], [EOS]], gates={1: gate}))
    client = Client(app, STREAM, converse_body())
    asyncio.get_running_loop().call_later(0.1, gate.set)
    await asyncio.wait_for(client.exchange, 5)
    assert client.ended


async def test_tokens_share_an_event_when_the_client_reads_slowly(stage: Stage) -> None:
    """And only then: while it reads, every token is sent as it comes."""
    gates = {number: asyncio.Event() for number in range(4)}
    stage.plays(Script([[70], [71], [72], [EOS]], gates=gates))
    client = Client(stage.app, STREAM, converse_body())
    for number in range(2):
        gates[number].set()
        await settled()
        assert number + 2 == len(frames(client.body))
    client.reads.clear()
    for number in range(2, 4):
        gates[number].set()
        await settled()
    client.reads.set()
    await client.exchange
    deltas = [payload["delta"]["text"] for name, payload in frames(client.body) if name == "contentBlockDelta"]
    assert [len(delta) for delta in deltas] == [1, 1, 1]
    assert client.ended


async def test_many_waiting_tokens_are_one_event(stage: Stage) -> None:
    """What piles up behind a client that does not read goes out together."""
    gate = asyncio.Event()
    stage.plays(Script([[70], *([71] for _ in range(100)), [EOS]], gates={1: gate}))
    client = Client(stage.app, STREAM, converse_body())
    await settled()
    client.reads.clear()
    gate.set()
    await settled()
    client.reads.set()
    await client.exchange
    lengths = [len(payload["delta"]["text"]) for name, payload in frames(client.body) if name == "contentBlockDelta"]
    assert sum(lengths) == 101
    assert len(lengths) <= 4


async def test_an_answer_that_breaks_off_is_not_passed_for_a_whole_one(stage: Stage) -> None:
    """A generation that ends without saying so is a failure."""
    stage.plays(replace(Script([[70]]), finish=None))  # type: ignore[arg-type]
    client = Client(stage.app, STREAM, converse_body())
    await client.exchange
    assert frames(client.body)[-1][0] == "serviceUnavailableException"
    assert not client.ended


async def test_a_bug_is_a_500_and_a_traceback_in_the_log(stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
    """The client learns the request id and nothing of our insides; a stream breaks."""

    def broken(request: GenerationRequest) -> Script:
        raise ZeroDivisionError("inside")

    stage.dispatcher.script = broken
    client = Client(stage.app, STREAM, converse_body())
    await client.exchange
    assert client.sent[0]["status"] == 500
    assert b"Internal error in request" in client.body
    assert b"inside" not in client.body
    assert "ZeroDivisionError" in caplog.text


async def test_a_stopped_server_says_so(stage: Stage) -> None:
    """A call that is cancelled from outside is an honest 503, or a broken stream."""
    stage.plays(Script([[70], [EOS]], gates={1: asyncio.Event()}))
    for path, last in ((STREAM, b"serviceUnavailableException"), (PATHS[0], b"ServiceUnavailableException")):
        client = Client(stage.app, path, converse_body())
        await settled()
        client.exchange.cancel()
        await client.exchange
        assert last in client.body
        assert "stopped" in client.body.decode(errors="replace")
    assert all(generation.closed.is_set() for generation in stage.dispatcher.generations)


async def test_a_slow_first_token_does_not_hold_the_stream_back_for_ever(strict: House) -> None:
    """After the configured time the stream begins without one, and without saying which way it goes."""
    gate = asyncio.Event()
    strict.plays(Script([strict.ids("late"), [EOS]], gates={0: gate}))
    async with strict.http.stream("POST", STREAM, json=converse_body()) as response:
        parts = response.aiter_raw()
        assert frames(await anext(parts)) == [("messageStart", {"role": "assistant"})]
        assert "x-twinfer-route" not in response.headers
        gate.set()
        events = frames(b"".join([part async for part in parts]))
    assert (events[0][1]["delta"]["text"], events[-1][0]) == ("late", "metadata")


async def test_a_long_wait_shows_signs_of_life(strict: House) -> None:
    """Comments, which the SDK skips, until the first token; an event stream has nothing of the kind."""
    gate = asyncio.Event()
    strict.plays(Script([strict.ids("Hello"), [EOS]], gates={0: gate}))
    async with strict.http.stream("POST", "/v1/chat/completions", json=chat_body(MODEL, stream=True)) as response:
        lines = response.aiter_lines()
        while not (await anext(lines)).startswith(": "):
            pass
        gate.set()
        rest = [line async for line in lines]
    assert rest[-2:] == ["data: [DONE]", ""]


async def test_a_full_server_says_when_to_come_back(strict: House) -> None:
    """Past max_requests the answer is 503; when a call has ended there is room again."""
    gate = asyncio.Event()
    strict.plays(Script([[70], [EOS]], gates={1: gate}))
    async with strict.http.stream("POST", STREAM, json=converse_body()) as first:
        second = await strict.http.post("/v1/chat/completions", json=chat_body(MODEL))
        assert (second.status_code, second.headers["retry-after"]) == (503, "1")
        gate.set()
        await first.aread()
    assert (await strict.http.post("/v1/chat/completions", json=chat_body(MODEL))).status_code == 200


async def test_too_long_a_body_is_refused_while_it_is_read(strict: House) -> None:
    """By its declared length, or when more comes than is allowed; the connection stays usable."""

    async def endless() -> AsyncIterator[bytes]:
        for _ in range(30):
            yield b"x" * 100

    for content in (b"x" * 1001, endless()):
        response = await strict.http.post(STREAM, content=content)
        assert (response.status_code, response.headers["x-amzn-errortype"]) == (413, "RequestEntityTooLargeException")
    envelope = (await strict.http.post("/v1/chat/completions", content=b"x" * 1001)).json()
    assert envelope["error"]["code"] == "request_too_large"


async def test_an_operator_may_forbid_choosing_the_route(strict: House) -> None:
    """403 in the words of each API."""
    headers = {"x-twinfer-route": "aggregated"}
    response = await strict.http.post(STREAM, json=converse_body(), headers=headers)
    assert (response.status_code, response.headers["x-amzn-errortype"]) == (403, "AccessDeniedException")
    response = await strict.http.post("/v1/chat/completions", json=chat_body(MODEL), headers=headers)
    assert (response.status_code, response.json()["error"]["type"]) == (403, "permission_error")


@pytest.mark.parametrize(
    ("method", "path", "status", "family"),
    [
        ("POST", "/model/x/invoke-backwards", 404, "aws"),
        ("GET", "/", 404, "aws"),
        ("POST", "/v1/embeddings", 404, "openai"),
        ("POST", "/openai/v1/nothing", 404, "openai"),
        ("GET", "/model/x/converse", 404, "aws"),
        ("DELETE", "/v1/models", 405, "openai"),
        ("POST", "/v1/models/chat", 405, "openai"),
        ("POST", "/metrics", 404, "aws"),
        ("POST", "/model//converse", 404, "aws"),
    ],
)
async def test_unknown_paths_and_methods(house: House, method: str, path: str, status: int, family: str) -> None:
    """In the envelope of the API that the path looks like, with a request id."""
    response = await house.http.request(method, path)
    assert (status, response.headers["x-amzn-requestid"]) == (response.status_code, response.headers["x-request-id"])
    assert status != 405 or response.headers["allow"]
    if family == "aws":
        assert "UnknownOperationException" == response.headers["x-amzn-errortype"] == response.json()["__type"]
    else:
        assert response.json()["error"]["type"] == "invalid_request_error"


async def test_health_and_readiness(house: House) -> None:
    """Alive is not yet able; the reason is the dispatcher's."""
    assert [(await house.http.get(path)).status_code for path in ("/healthz", "/readyz")] == [200, 200]
    house.dispatcher.reason = "no decode worker is ready"
    response = await house.http.get("/readyz")
    assert (response.status_code, response.text) == (503, "no decode worker is ready\n")
    assert (await house.http.get("/healthz")).status_code == 200


async def test_metrics_count_what_was_served(model: ServedModel) -> None:
    """The gateway's own series and the workers', in one text that Prometheus can read."""
    from prometheus_client.parser import text_string_to_metric_families

    async with open_house(model) as house:
        house.says("Hello world", cached_tokens=2)
        await house.http.post(STREAM, json=converse_body())
        await house.http.post(STREAM, json={})
        house.plays(Script([[70]], failure=EngineFailure("Broken.")))
        with pytest.raises(httpx.RemoteProtocolError):
            await house.http.post(STREAM, json=converse_body())
        response = await house.http.get("/metrics")
    samples = {
        (sample.name, sample.labels.get("status", sample.labels.get("phase", ""))): sample.value
        for family in text_string_to_metric_families(response.text)
        for sample in family.samples
    }
    assert [samples["twinfer_gateway_responses_total", status] for status in ("200", "400")] == [1, 1]
    assert samples["twinfer_gateway_broken_streams_total", ""] == 1
    prompt = len(house.dispatcher.generations[0].request.prompt)
    assert (1, prompt - 2, 2, len(house.ids("Hello world")) + 1) == tuple(
        samples[name, ""]
        for name in (
            "bedrock_invocations_total",
            "bedrock_input_token_count_total",
            "bedrock_cache_read_input_token_count_total",
            "bedrock_output_token_count_total",
        )
    )
    assert samples["twinfer_phase_seconds_sum", "exposed_transfer"] == 0.004
    assert (samples["fake_workers", ""], samples["twinfer_gateway_in_work", ""]) == (2, 0)
    assert response.headers["content-type"].startswith("text/plain")


async def test_a_long_prompt_does_not_stop_the_others(house: House) -> None:
    """While one is cut into tokens, the event loop goes on."""
    ticks, done = 0, asyncio.Event()

    async def tick() -> None:
        nonlocal ticks
        while not done.is_set():
            ticks += 1
            await asyncio.sleep(0.001)

    ticking = asyncio.create_task(tick())
    response = await house.http.post(PATHS[0], json=converse_body("hello world " * 100_000))
    done.set()
    await ticking
    assert response.status_code == 400
    assert ticks > 20


@pytest.mark.parametrize(
    ("path", "body"), [(STREAM, converse_body()), (f"/model/{MODEL}/invoke-with-response-stream", {"prompt": "hi"})]
)
@pytest.mark.parametrize(("scheme", "wanted"), [("https", True), ("https", False), ("http", True)])
async def test_padding_hides_lengths_under_tls(
    model: ServedModel, path: str, body: Any, scheme: str, wanted: bool
) -> None:
    """Every event over TLS carries a field for it, unless the operator wants none; without TLS none does."""
    config = Config(model=(ModelConfig(id=MODEL),), gateway=GatewayConfig(pad_events=wanted))
    app = build_app(config, ModelRegistry([model]), FakeDispatcher(lambda request: Script([[5], [6], [EOS]])))
    client = Client(app, path, body, scheme)
    await client.exchange
    found = frames(client.body)
    assert len(found) > 1
    assert {scheme == "https" and wanted} == {"p" in payload for _, payload in found}


async def test_a_connection_serves_one_call_after_another(house: House) -> None:
    """Neither a stream nor an error spoils it for the next call."""
    for _ in range(3):
        stream = await house.http.post("/v1/chat/completions", json=chat_body(MODEL, stream=True))
        assert chunks(stream.content)[-1] == "[DONE]"
        assert (await house.http.post(PATHS[0], content=b"{")).status_code == 400
    assert house.all_closed


async def test_bytes_that_are_no_http_harm_nobody(house: House) -> None:
    """Whatever comes on a connection, it is answered with 400 at most, and others are served. A client that says no
    more after its request may have left."""
    random = Random(0)
    good = post(PATHS[0], converse_body())
    found: list[bytes] = []
    for _ in range(200):
        at = random.randrange(len(good))
        spoilt = random.choice(
            [
                good[:at],
                good[:at] + random.randbytes(8) + good[at:],
                random.randbytes(60),
                good[:at] + good,
                b"\r\n" * 99,
            ]
        )
        found += re.findall(rb"^HTTP/1\.1 (\d)", await half_closed(house.address, spoilt), re.MULTILINE)
    assert {b"4"} <= set(found) <= {b"2", b"4"}
    assert (await house.http.post(PATHS[0], json=converse_body())).status_code == 200
    assert house.all_closed


async def half_closed(address: tuple[str, int], request: bytes) -> bytes:
    """What a server answers to a client that says no more; an aborted connection is an answer, too."""
    reader, writer = await asyncio.open_connection(*address)
    try:
        writer.write(request)
        writer.write_eof()
        return await asyncio.wait_for(reader.read(), 10)
    except ConnectionError:
        return b""
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()
