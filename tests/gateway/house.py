"""A gateway over a scripted cluster, on a real socket, and the clients that people use."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

import boto3
import httpx
import msgspec
import openai
from botocore.config import Config as ClientConfig
from botocore.model import OperationModel
from tokenizers import Tokenizer as Backend
from tokenizers import decoders, models, pre_tokenizers, trainers

from tests.gateway.output_shape import check_response, events
from twinfer.core.config import Config, ModelConfig
from twinfer.core.ids import ModelId, RequestId, TenantId
from twinfer.core.request import GenerationRequest, Stopping
from twinfer.core.route import RouteKind
from twinfer.core.tokens import FinishReason, Token
from twinfer.gateway.answers import Answer, Piece
from twinfer.gateway.auth import Door
from twinfer.gateway.fake import FakeDispatcher, FakeGeneration, Script
from twinfer.gateway.front import Front
from twinfer.gateway.models import ModelRegistry, ServedModel
from twinfer.gateway.office import Office
from twinfer.gateway.serve import bind, build_app, serve
from twinfer.gateway.text.content import Delta
from twinfer.identity.principal import ANYBODY, Principal

SPECIAL = ("<|bos|>", "<|eos|>", "<|user|>", "<|assistant|>", "<|system|>")
EOS = 1
TEMPLATE = """{{ bos_token }}{% for message in messages %}
{% if message.role == 'assistant' and message.content == 'refuse me' %}{{ raise_exception('Refused.') }}{% endif %}
<|{{ message.role }}|>{{ message.content }}{% endfor %}
{% if add_generation_prompt %}<|assistant|>{% endif %}"""
CORPUS = ["The quick brown fox jumps over the lazy dog. ", "hello world, says the decoder; naïve café 東京 🙂 "] * 40


def byte_level_backend() -> Backend:
    """A small vocabulary that can write any bytes."""
    backend = Backend(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=list(SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(CORPUS, trainer)
    backend.add_tokens(["<tool call>", "é!"])
    return backend


def checkpoint(directory: Path) -> Path:
    """Write everything of a checkpoint but its weights."""
    byte_level_backend().save(str(directory / "tokenizer.json"))
    words = {"bos_token": SPECIAL[0], "eos_token": {"content": SPECIAL[1]}, "chat_template": TEMPLATE}
    (directory / "tokenizer_config.json").write_text(json.dumps(words))
    shape = {"vocab_size": 407, "max_position_embeddings": 512, "eos_token_id": EOS}
    (directory / "config.json").write_text(json.dumps(shape))
    return directory


class House:
    """A running gateway.

    Attributes:
        dispatcher: the scripted cluster.
        address, url: where the gateway listens.
        http: a raw client of it.
    """

    def __init__(
        self, model: ServedModel, dispatcher: FakeDispatcher, address: tuple[str, int], http: httpx.AsyncClient
    ) -> None:
        self.model = model
        self.dispatcher = dispatcher
        self.address = address
        self.url = f"http://{address[0]}:{address[1]}"
        self.http = http
        self._clients: dict[tuple[str, int], Any] = {}

    def reset(self) -> None:
        """Forget what was played, and play nothing."""
        self.dispatcher.generations.clear()
        self.dispatcher.forced.clear()
        self.dispatcher.reason = None
        self.dispatcher.fast = set()
        self.says("Hello world")

    def plays(self, script: Script | Callable[[GenerationRequest], Script]) -> None:
        """Every request from now on meets this script."""
        self.dispatcher.script = script if callable(script) else lambda request: script

    def says(self, text: str, **details: Any) -> None:
        """Every answer from now on is this text, token by token."""
        self.plays(Script([*([token] for token in self.ids(text)), [EOS]], **details))

    def ids(self, text: str) -> tuple[int, ...]:
        """Tokens of a text."""
        return self.model.tokenizer.encode(text, add_special_tokens=False)

    def boto3(self, service: str = "bedrock-runtime", attempts: int = 1) -> Any:
        """A client as most people make one; made once, because that takes a while."""
        key = (service, attempts)
        if key not in self._clients:
            retries = {"total_max_attempts": attempts, "mode": "standard"}
            client = self._clients[key] = boto3.client(
                service, endpoint_url=self.url, region_name="us-east-1", config=ClientConfig(retries=retries)
            )
            client.meta.events.register("before-parse.*", _check_before_parse)
        return self._clients[key]

    def close(self) -> None:
        """Close what clients hold open."""
        for client in self._clients.values():
            client.close()

    def openai(self, prefix: str = "/v1") -> openai.AsyncOpenAI:
        """A client as most people make one."""
        return openai.AsyncOpenAI(base_url=self.url + prefix, api_key="none", max_retries=0)

    @property
    def all_closed(self) -> bool:
        """Whether every generation that was started has been closed."""
        return all(generation.closed.is_set() for generation in self.dispatcher.generations)


def _check_before_parse(operation_model: OperationModel, response_dict: dict[str, Any], **_: Any) -> None:
    """What boto3 is about to parse. Bodies that it hands on as they are, streams among them, are left to the tests."""
    status, headers, body = (response_dict[name] for name in ("status_code", "headers", "body"))
    if isinstance(body, bytes):
        http = operation_model.http
        check_response(http["method"], http["requestUri"], status, headers, body)


class CheckedClient(httpx.AsyncClient):
    """A raw client that takes no response of Bedrock's API that botocore would not."""

    async def request(self, method: str, url: Any, **arguments: Any) -> httpx.Response:
        """Send, read, check."""
        response = await super().request(method, url, **arguments)
        path = response.request.url.raw_path.decode()
        check_response(method, path, response.status_code, response.headers, response.content)
        return response


@contextlib.asynccontextmanager
async def open_house(
    model: ServedModel,
    config: Config | None = None,
    drain_s: float = 1,
    others: Sequence[ServedModel] = (),
    *,
    door: Door | None = None,
    front: Front | None = None,
    office: Office | None = None,
) -> AsyncIterator[House]:
    """Serve on a free port until the context ends."""
    dispatcher = FakeDispatcher(lambda request: Script([[EOS]]))
    config = config or Config(model=(ModelConfig(id=model.id),))
    app = build_app(config, ModelRegistry([model, *others]), dispatcher, door, office)
    sock, stop = bind("127.0.0.1", 0), asyncio.Event()
    address = sock.getsockname()
    url = f"http://{address[0]}:{address[1]}"
    serving = asyncio.create_task(serve(app, sock, stop, drain_s, front))
    try:
        async with CheckedClient(base_url=url, timeout=10) as http:
            house = House(model, dispatcher, address, http)
            with contextlib.closing(house):
                yield house
    finally:
        stop.set()
        await serving


def caller(tenant: str) -> Principal:
    """Somebody of this tenant who may do everything."""
    return Principal(TenantId(tenant), "AKIDEXAMPLE", ANYBODY.policy)


def converse_body(text: str = "hi", **fields: Any) -> dict[str, Any]:
    """The smallest request, and more."""
    return {"messages": [{"role": "user", "content": [{"text": text}]}], **fields}


def chat_body(model: str, text: str = "hi", **fields: Any) -> dict[str, Any]:
    """The smallest request, and more."""
    return {"model": model, "messages": [{"role": "user", "content": text}], **fields}


def frames(data: bytes) -> list[tuple[str, Any]]:
    """Event or exception type and payload of every frame of an AWS event stream."""
    return list(events(data))


def chunks(data: bytes) -> Sequence[Any]:
    """Payloads of a stream of server-sent events; the closing mark as text."""
    lines = [line.removeprefix(b"data: ") for line in data.split(b"\n\n") if line]
    return [line.decode() if line == b"[DONE]" else msgspec.json.decode(line) for line in lines]


async def raw_exchange(address: tuple[str, int], request: bytes) -> bytes:
    """Everything a server writes on one connection until it closes it."""
    reader, writer = await asyncio.open_connection(*address)
    try:
        writer.write(request)
        return await reader.read()
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


def post(path: str, body: Any) -> bytes:
    """A request as bytes."""
    payload = msgspec.json.encode(body)
    head = f"POST {path} HTTP/1.1\r\nhost: gateway\r\ncontent-length: {len(payload)}\r\n\r\n"
    return head.encode() + payload


class ScriptedReading:
    """An answer's content as a test has it: one delta for each token."""

    stopped = None
    done = False
    lacks_call = False
    num_reasoning_tokens = 0

    def __init__(self, deltas: Sequence[Delta]) -> None:
        self._deltas = list(deltas)
        self._read: list[Delta] = []

    def feed(self, token_id: int) -> None:
        """The next delta."""
        self._read.append(self._deltas.pop(0))

    def take(self) -> tuple[Delta, ...]:
        """Those since the last call."""
        read, self._read = tuple(self._read), []
        return read

    def finish(self) -> None:
        """Nothing is held back."""


def an_answer(*deltas: Delta, prompt: tuple[int, ...] = (7, 7, 7), choice: int = 0) -> tuple[Answer, list[Piece]]:
    """A complete answer of a token for each delta and one that ends it, and the pieces in which it came."""
    request = GenerationRequest(RequestId("r"), ModelId("m"), TenantId("t"), prompt, Stopping(100), choice=choice)
    answer = Answer(request, FakeGeneration(request, Script([]), RouteKind.AGGREGATED), ScriptedReading(deltas), False)
    pieces = [answer.absorb([Token(request.request_id, index, 9)]) for index in range(len(deltas))]
    answer.absorb([Token(request.request_id, len(deltas), EOS, finish=FinishReason.STOP)])
    return answer, [*pieces, answer.finish()]
