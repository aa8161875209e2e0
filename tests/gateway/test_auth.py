"""The door of a gateway, over real sockets: who gets in, how others are told, and how it follows the keys."""

import asyncio
import contextlib
import datetime
import logging
import random
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import boto3
import httpx
import openai
import pytest
import pytest_asyncio
from botocore.config import Config as ClientConfig
from botocore.exceptions import ClientError

from tests.gateway.house import EOS, House, chat_body, converse_body, open_house, raw_exchange
from twinfer.core.clock import ManualClock
from twinfer.core.config import Config, GatewayConfig, IdentityConfig, ModelConfig
from twinfer.core.errors import CapacityError, ConfigError, EngineFailure
from twinfer.core.ids import TenantId
from twinfer.gateway.auth import GuardedDoor, terms_of
from twinfer.gateway.fake import Script
from twinfer.gateway.key_watch import KeyWatch, watched_door
from twinfer.gateway.models import ServedModel
from twinfer.identity.credential import Issued, issue
from twinfer.identity.keyring import Keyring
from twinfer.identity.place import Place, place_of
from twinfer.identity.policy import Policy
from twinfer.identity.principal import ANYBODY
from twinfer.identity.refusals import MissingToken
from twinfer.identity.sigv4 import Head
from twinfer.identity.store import KeyRecord, KeyStore

pytestmark = pytest.mark.asyncio(loop_scope="module")

MODEL = "twinfer.tiny-v1:0"
PATH = f"/model/{MODEL}/converse"
REGION = "us-east-1"
GRAPHIC = [*range(33, 127), *range(128, 256)]
"""Bytes that a header may have."""


def add(
    store: KeyStore, tenant: str = "acme", *allow: str, expires_s: float | None = None, temporary: bool = False
) -> Issued:
    """A new key in a database."""
    issued = issue(temporary=temporary)
    now = time.time()
    expires = None if expires_s is None else now + expires_s
    store.create(KeyRecord(issued.key_id, TenantId(tenant), Policy.parse(allow), now, expires), issued)
    return issued


@pytest.fixture(scope="module")
def identity(tmp_path_factory: pytest.TempPathFactory) -> IdentityConfig:
    """Keys of this module."""
    return IdentityConfig(database=f"sqlite:///{tmp_path_factory.mktemp('keys')}/keys.db", refresh_s=0.01)


@pytest.fixture(scope="module")
def store(identity: IdentityConfig) -> KeyStore:
    """Their database."""
    return KeyStore(place_of(identity, {}))


@pytest.fixture(scope="module")
def issued(store: KeyStore) -> Issued:
    """A key that may do everything."""
    return add(store)


@contextlib.asynccontextmanager
async def guarded_house(model: ServedModel, identity: IdentityConfig) -> AsyncIterator[tuple[House, GuardedDoor]]:
    """A gateway that follows these keys."""
    config = Config(model=(ModelConfig(id=model.id),), identity=identity)
    async with watched_door(config, shut=False) as door, open_house(model, config, door=door) as house:
        house.says("Hello world")
        yield house, door


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def _guarded(model: ServedModel, identity: IdentityConfig, issued: Issued) -> AsyncIterator[House]:
    async with guarded_house(model, identity) as (house, _):
        yield house


@pytest.fixture
def guarded(_guarded: House) -> House:
    """A gateway with keys, and nothing left of the test before."""
    _guarded.reset()
    return _guarded


@contextlib.contextmanager
def client_of(house: House, issued: Issued, service: str = "bedrock-runtime", **changes: str) -> Iterator[Any]:
    """boto3 with this key."""
    found = {
        "aws_access_key_id": issued.key_id,
        "aws_secret_access_key": issued.secret,
        "aws_session_token": issued.session_token or None,
        **changes,
    }
    options = ClientConfig(retries={"total_max_attempts": 1})
    client = boto3.client(service, endpoint_url=house.url, region_name=REGION, config=options, **found)
    with contextlib.closing(client):
        yield client


def refusal_of(client: Any, **fields: Any) -> str:
    """The error with which Converse ends."""
    with pytest.raises(ClientError) as refused:
        client.converse(modelId=MODEL, **converse_body(**fields))
    assert refused.value.response["ResponseMetadata"]["HTTPStatusCode"] == 403
    return str(refused.value.response["Error"]["Code"])


async def test_boto3_signs(guarded: House, issued: Issued) -> None:
    """Whole answers, streams and lists, and names with colons and slashes."""

    def ask() -> None:
        with client_of(guarded, issued) as client:
            for name in (MODEL, f"arn:aws:bedrock:{REGION}::foundation-model/{MODEL}", f"us.{MODEL}"):
                answer = client.converse(modelId=name, **converse_body())
                assert answer["output"]["message"]["content"] == [{"text": "Hello world"}]
            assert [*client.converse_stream(modelId=MODEL, **converse_body())["stream"]]
        with client_of(guarded, issued, "bedrock") as control:
            assert control.list_foundation_models()["modelSummaries"]

    await asyncio.to_thread(ask)
    assert {generation.request.tenant for generation in guarded.dispatcher.generations} == {"acme"}


async def test_boto3_with_a_temporary_key(guarded: House, store: KeyStore) -> None:
    """Its token is signed; without it, or when its time is over, the errors are AWS's."""
    temporary, over = add(store, temporary=True, expires_s=600), add(store, temporary=True, expires_s=-1)
    await known(guarded, over)

    def ask() -> None:
        with client_of(guarded, temporary) as client:
            assert client.converse(modelId=MODEL, **converse_body())["stopReason"]
        with client_of(guarded, temporary, aws_session_token="other") as client:
            assert refusal_of(client) == "UnrecognizedClientException"
        with client_of(guarded, over) as client:
            assert refusal_of(client) == "ExpiredTokenException"

    await asyncio.to_thread(ask)


async def known(house: House, issued: Issued) -> None:
    """Return when a gateway has heard of a key: it is not a stranger's any more."""
    async with asyncio.timeout(10):
        while True:
            with client_of(house, issued) as client:
                try:
                    await asyncio.to_thread(client.converse, modelId=MODEL, **converse_body())
                except ClientError as error:
                    if error.response["Error"]["Code"] != "UnrecognizedClientException":
                        return
                else:
                    return


async def test_strangers_and_forgers(guarded: House, issued: Issued) -> None:
    """By name: an unknown key, a wrong secret, a clock that is wrong."""

    def ask() -> None:
        with client_of(guarded, issue()) as client:
            assert refusal_of(client) == "UnrecognizedClientException"
        with client_of(guarded, issued, aws_secret_access_key="wrong") as client:
            assert refusal_of(client) == "InvalidSignatureException"
        with client_of(guarded, issued) as client, late():
            assert refusal_of(client) == "InvalidSignatureException"

    await asyncio.to_thread(ask)
    assert guarded.dispatcher.generations == []


def late() -> Any:
    """botocore believes that it is six minutes ago."""
    then = datetime.datetime.now(datetime.UTC).replace(tzinfo=None) - datetime.timedelta(minutes=6)
    return mock.patch("botocore.auth.get_current_datetime", return_value=then)


async def test_bearer_keys(guarded: House, issued: Issued, store: KeyStore) -> None:
    """Long-term by header; expired, cut and foreign ones are refused, and so is nothing at all."""
    over = add(store, expires_s=-1)
    await known(guarded, over)
    for token, status, kind in (
        (issued.bearer, 200, None),
        (over.bearer, 403, "ExpiredTokenException"),
        (issued.bearer[:-2], 403, "AccessDeniedException"),
        (issue().bearer, 403, "AccessDeniedException"),
        ("", 403, "AccessDeniedException"),
        (None, 403, "MissingAuthenticationTokenException"),
    ):
        headers = {} if token is None else {"authorization": f"Bearer {token}".strip()}
        answer = await guarded.http.post(PATH, json=converse_body(), headers=headers)
        assert (answer.status_code, answer.headers.get("x-amzn-errortype")) == (status, kind)


async def test_openai_s_key(guarded: House, issued: Issued) -> None:
    """The bearer key is its API key; another raises the SDK's class for it."""
    for prefix in ("/v1", "/openai/v1"):
        async with openai.AsyncOpenAI(base_url=guarded.url + prefix, api_key=issued.bearer, max_retries=0) as client:
            answer = await client.chat.completions.create(**chat_body(MODEL))
            assert answer.choices[0].message.content == "Hello world"
            assert [model.id async for model in client.models.list()] == [MODEL]
        async with openai.AsyncOpenAI(base_url=guarded.url + prefix, api_key="sk-wrong", max_retries=0) as client:
            with pytest.raises(openai.AuthenticationError) as refused:
                await client.chat.completions.create(**chat_body(MODEL))
            assert refused.value.code == "invalid_api_key"


async def test_policies(model: ServedModel, identity: IdentityConfig, store: KeyStore, guarded: House) -> None:
    """By action and by model, under whatever name the model is asked for; what is not allowed is not listed."""
    streams = add(store, "acme", "bedrock:InvokeModelWithResponseStream")
    others = add(store, "acme", "*@meta.*")
    watcher = add(store, "watch", "twinfer:GetMetrics")
    await known(guarded, watcher)

    async def status(issued: Issued, method: str, path: str) -> int:
        body = None if method == "GET" else converse_body() | chat_body(MODEL) if "v1/" in path else converse_body()
        answer = await httpx.AsyncClient.request(
            guarded.http, method, path, json=body, headers={"authorization": f"Bearer {issued.bearer}"}
        )
        return answer.status_code

    assert await status(streams, "POST", f"{PATH}-stream") == 200
    assert await status(streams, "POST", PATH) == 403
    assert await status(others, "POST", PATH) == 403
    assert await status(others, "POST", "/model/meta.llama3-1-8b-instruct-v1%3A0/converse") == 403
    assert await status(others, "POST", f"/model/us.{MODEL}/converse") == 403
    assert await status(watcher, "POST", PATH) == 403
    assert await status(watcher, "GET", "/metrics") == 200
    assert await status(streams, "GET", "/metrics") == 403
    assert await status(streams, "GET", "/v1/models") == 403
    listed = await guarded.http.get("/v1/models", headers={"authorization": f"Bearer {others.bearer}"})
    assert listed.json()["data"] == []
    assert (await guarded.http.get("/healthz")).status_code == 200
    assert (await guarded.http.get("/readyz")).status_code == 200
    assert (await guarded.http.get("/metrics")).status_code == 403


async def test_a_refused_body_is_not_read(guarded: House) -> None:
    """Nobody without a claim gets to send 25 MB."""
    raw = f"POST {PATH} HTTP/1.1\r\nhost: h\r\ncontent-length: 20000000\r\nconnection: close\r\n\r\n".encode()
    answer = await asyncio.wait_for(raw_exchange(guarded.address, raw), 10)
    assert answer.startswith(b"HTTP/1.1 403")


async def test_a_long_body_is_verified(guarded: House, issued: Issued) -> None:
    """Beside the event loop."""

    def ask() -> None:
        with client_of(guarded, issued) as client, pytest.raises(ClientError) as refused:
            client.converse(modelId=MODEL, **converse_body("x" * 300_000))
        assert refused.value.response["Error"]["Code"] == "ValidationException"
        with client_of(guarded, issued, aws_secret_access_key="wrong") as client:
            assert refusal_of(client, text="x" * 300_000) == "InvalidSignatureException"

    await asyncio.to_thread(ask)


async def test_forgeries_over_the_wire(guarded: House, issued: Issued) -> None:
    """Anything in the headers that prove who one is: 403, never 500, and no work begins."""
    chance = random.Random(3)
    heads = ["", "Bearer ", "Bearer bedrock-api-key-", "AWS4-HMAC-SHA256 ", "AWS4-HMAC-SHA256 Credential=", "Basic "]
    for _ in range(300):
        text = bytes(chance.choice(GRAPHIC) for _ in range(chance.randrange(40)))
        headers = [(b"authorization", (chance.choice(heads).encode() + text).strip())]
        if chance.random() < 0.3:
            headers.append((b"x-amz-date", text or b"20260102T030405Z"))
        answer = await guarded.http.post(PATH, json=converse_body(), headers=headers)
        assert answer.status_code == 403
    assert guarded.dispatcher.generations == []


async def test_no_log_has_a_secret(guarded: House, issued: Issued, caplog: pytest.LogCaptureFixture) -> None:
    """Neither of those that are accepted nor of those that are refused, however much is logged."""
    wrong = issue()
    with caplog.at_level(logging.DEBUG, "twinfer"), caplog.at_level(logging.DEBUG, "uvicorn"):
        for token in (issued.bearer, wrong.bearer, f"{issued.bearer}x"):
            await guarded.http.post(PATH, json=converse_body(), headers={"authorization": f"Bearer {token}"})
        guarded.plays(Script([], failure=EngineFailure("Broken.")))
        await guarded.http.post(PATH, json=converse_body(), headers={"authorization": f"Bearer {issued.bearer}"})
    for secret in (issued.bearer, issued.secret, wrong.bearer):
        assert secret not in caplog.text


async def test_open_until_the_first_key_and_closed_for_good(model: ServedModel, tmp_path: Path) -> None:
    """A running gateway closes when the first key is made; a revoked key, or a database that is gone, opens nothing."""
    identity = IdentityConfig(database=f"sqlite:///{tmp_path}/keys.db", refresh_s=0.005)
    store = KeyStore(place_of(identity, {}))

    async with guarded_house(model, identity) as (house, door):

        async def until(status: int, **headers: str) -> None:
            async with asyncio.timeout(10):
                while (await house.http.post(PATH, json=converse_body(), headers=headers)).status_code != status:
                    pass

        house.plays(Script([[EOS]]))
        assert not door.shut
        await until(200)
        assert house.dispatcher.generations[-1].request.tenant == "default"
        issued = add(store)
        await until(403)
        await until(200, authorization=f"Bearer {issued.bearer}")
        store.revoke(issued.key_id, time.time())
        await until(403, authorization=f"Bearer {issued.bearer}")
        (tmp_path / "keys.db").unlink()
        for _ in range(20):
            await until(403)
        assert door.shut


async def test_keys_can_be_required_from_the_start(model: ServedModel, tmp_path: Path) -> None:
    """Even where there are none yet."""
    identity = IdentityConfig(database=f"sqlite:///{tmp_path}/keys.db", required=True)
    async with guarded_house(model, identity) as (house, _):
        assert (await house.http.post(PATH, json=converse_body())).status_code == 403


HEAD = Head("POST", PATH, "", {})


async def test_stale_keys_open_nothing() -> None:
    """Who could have been revoked since is asked to come again."""
    clock = ManualClock()
    door = GuardedDoor(terms_of(Config()), shut=False, max_stale_s=10, clock=clock)
    bearer = Head("POST", PATH, "", {"authorization": ["Bearer x"]})
    door.renew(Keyring(), any_ever=True)
    clock.advance(11)
    claim = door.claim(bearer)
    with pytest.raises(CapacityError, match="cannot be read at the moment"):
        await door.principal(claim, bearer, b"")


async def test_a_request_under_way_when_the_door_closes() -> None:
    """It began without a claim, and is asked for one."""
    door = GuardedDoor(terms_of(Config()), shut=False, max_stale_s=10, clock=ManualClock())
    assert door.claim(HEAD) is None
    assert await door.principal(None, HEAD, b"") is ANYBODY
    door.renew(Keyring(), any_ever=True)
    with pytest.raises(MissingToken):
        await door.principal(None, HEAD, b"")


async def test_a_database_that_cannot_be_read_stops_the_start(tmp_path: Path) -> None:
    """Rather than opening the door."""
    (tmp_path / "keys.db").write_text("no database, whatever its name says, and long enough to be looked at" * 30)
    config = Config(identity=IdentityConfig(database=f"sqlite:///{tmp_path}/keys.db"))
    with pytest.raises(ConfigError, match="cannot be used"):
        async with watched_door(config, shut=False):
            pass


async def test_a_vanished_database_is_said_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """And when it is back."""
    place: Place = place_of(IdentityConfig(database=f"sqlite:///{tmp_path}/keys.db"), {})
    add(KeyStore(place))
    door = GuardedDoor(terms_of(Config(gateway=GatewayConfig())), shut=False, max_stale_s=10, clock=ManualClock())
    watch = KeyWatch(place, door)
    watch.look()
    assert door.shut
    following = asyncio.create_task(watch.follow(0.001))
    hidden = (tmp_path / "keys.db").rename(tmp_path / "elsewhere")
    async with asyncio.timeout(10):
        while "is gone" not in caplog.text:
            await asyncio.sleep(0.001)
        hidden.rename(tmp_path / "keys.db")
        while "can be read again" not in caplog.text:
            await asyncio.sleep(0.001)
    following.cancel()
    assert caplog.text.count("is gone") == 1
