"""TLS and both versions of HTTP in front of one gateway, on one port."""

import asyncio
import contextlib
import shutil
import ssl
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import pytest
import pytest_asyncio

from tests.gateway.house import EOS, House, converse_body, frames, open_house, post, raw_exchange
from twinfer.cli import main
from twinfer.core.config import GatewayConfig
from twinfer.core.config_text import parse_config
from twinfer.core.errors import ConfigError, EngineFailure
from twinfer.gateway.fake import Script
from twinfer.gateway.front import PREFACE, Front, front_of
from twinfer.gateway.models import ServedModel

zttp = pytest.importorskip("zttp")
pytestmark = pytest.mark.asyncio(loop_scope="module")

PATH = "/model/twinfer.tiny-v1%3A0/converse"


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a certificate for this machine."""
    directory = tmp_path_factory.mktemp("endpoint")
    assert main(["certs", str(directory), "--endpoint"]) == 0
    return directory


@pytest.fixture(scope="module")
def settings(endpoint: Path) -> GatewayConfig:
    """What the command says to set."""
    return GatewayConfig(tls_cert=str(endpoint / "cert.pem"), tls_key=str(endpoint / "key.pem"))


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def plain_house(model: ServedModel) -> AsyncIterator[House]:
    """Without TLS."""
    async with open_house(model, front=front_of(GatewayConfig())) as house:
        yield house


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def encrypted_house(model: ServedModel, settings: GatewayConfig) -> AsyncIterator[House]:
    """With TLS."""
    async with open_house(model, front=front_of(settings)) as house:
        yield house


@pytest.fixture(params=["plain", "TLS"])
def front_house(request: pytest.FixtureRequest, plain_house: House, encrypted_house: House) -> House:
    """A gateway that speaks both versions, with TLS and without, and nothing left of the test before."""
    house = plain_house if request.param == "plain" else encrypted_house
    house.reset()
    return house


@pytest.fixture
def trust(request: pytest.FixtureRequest, endpoint: Path) -> ssl.SSLContext | None:
    """What a client of ``front_house`` needs; offers HTTP/2."""
    if request.node.callspec.params["front_house"] == "plain":
        return None
    context = ssl.create_default_context(cafile=str(endpoint / "ca.pem"))
    context.set_alpn_protocols(["h2", "http/1.1"])
    return context


@dataclass
class Answer:
    """What came on one stream."""

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    ended: bool = False
    reset: bool = False


class H2:
    """A client of one HTTP/2 connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self._connection = zttp.Connection(zttp.CLIENT, protocol=zttp.HTTP2)
        self._connection.initiate_connection()
        self._answers: dict[int, Answer] = {}

    def ask(self, path: str, body: Any) -> Answer:
        """Send a request; its answer is filled by ``read``."""
        payload = msgspec.json.encode(body)
        headers = [(b"host", b"gateway"), (b"content-length", str(len(payload)).encode())]
        stream = self._connection.send_request(b"POST", path.encode(), b"2", headers)
        stream.send_data(payload)
        stream.end_message()
        self._writer.write(self._connection.data_to_send())
        return self._answers.setdefault(stream.stream_id, Answer())

    def drop(self, answer: Answer) -> None:
        """Have no more of it."""
        number = next(number for number, each in self._answers.items() if each is answer)
        self._connection.stream(number).reset()
        self._writer.write(self._connection.data_to_send())

    async def read(self, *wanted: Answer) -> None:
        """Until these are there, or the first bytes of bodies that do not end."""
        while not all(answer.ended or answer.reset for answer in wanted):
            await self.step()

    async def step(self) -> None:
        """Whatever comes next."""
        data = await asyncio.wait_for(self._reader.read(65536), 10)
        assert data, "the connection ended"
        self._connection.receive_data(data)
        while (event := self._connection.next_event()) is not zttp.NEED_DATA:
            answer = self._answers.get(getattr(event, "stream_id", 0), Answer())
            if isinstance(event, zttp.Response):
                answer.status = event.status_code
                answer.headers = {name.decode(): value.decode() for name, value in event.headers}
            elif isinstance(event, zttp.Data):
                answer.body += event.data
            elif isinstance(event, zttp.EndOfMessage):
                answer.ended = True
            elif isinstance(event, zttp.RstStream):
                answer.reset = True
            answer.ended |= bool(getattr(event, "end_stream", False))
        self._writer.write(self._connection.data_to_send())


@contextlib.asynccontextmanager
async def h2(house: House, trust: ssl.SSLContext | None) -> AsyncIterator[H2]:
    """A connection: by ALPN with TLS, by prior knowledge without."""
    name = "localhost" if trust else None
    reader, writer = await asyncio.open_connection(*house.address, ssl=trust, server_hostname=name)
    try:
        if trust:
            assert writer.get_extra_info("ssl_object").selected_alpn_protocol() == "h2"
        yield H2(reader, writer)
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            await writer.wait_closed()


async def test_many_answers_on_one_connection(front_house: House, trust: ssl.SSLContext | None) -> None:
    """Whole ones and streams, at once; each with its own id."""
    async with h2(front_house, trust) as client:
        whole = [client.ask(PATH, converse_body()) for _ in range(5)]
        streams = [client.ask(f"{PATH}-stream", converse_body()) for _ in range(5)]
        await client.read(*whole, *streams)
    for answer in whole:
        assert msgspec.json.decode(answer.body)["output"]["message"]["content"] == [{"text": "Hello world"}]
    for answer in streams:
        names = [name for name, _ in frames(answer.body)]
        assert (names[0], names[-1]) == ("messageStart", "metadata")
        padded = any("p" in payload for _, payload in frames(answer.body))
        assert padded == (trust is not None)
    assert len({answer.headers["x-amzn-requestid"] for answer in (*whole, *streams)}) == 10


async def test_errors_keep_their_connection(front_house: House, trust: ssl.SSLContext | None) -> None:
    """An HTTP error; and a stream that breaks is reset, while its neighbours go on."""
    async with h2(front_house, trust) as client:
        unknown = client.ask("/model/none/converse", converse_body())
        await client.read(unknown)
        assert (unknown.status, unknown.headers["x-amzn-errortype"]) == (400, "ValidationException")
        front_house.plays(Script([[70]], failure=EngineFailure("Broken.")))
        broken = client.ask(f"{PATH}-stream", converse_body())
        await client.read(broken)
        assert broken.reset
        assert frames(broken.body)[-1][0] == "modelStreamErrorException"
        front_house.says("Hello world")
        again = client.ask(PATH, converse_body())
        await client.read(again)
        assert again.status == 200


async def test_a_stream_that_is_given_up_is_cancelled(front_house: House, trust: ssl.SSLContext | None) -> None:
    """As a closed connection is with HTTP/1.1."""
    front_house.plays(Script([[70], [EOS]], gates={1: asyncio.Event()}))
    async with h2(front_house, trust) as client:
        answer = client.ask(f"{PATH}-stream", converse_body())
        while b"contentBlockDelta" not in answer.body:
            await client.step()
        client.drop(answer)
        (generation,) = front_house.dispatcher.generations
        await asyncio.wait_for(generation.closed.wait(), 10)


async def test_http_1_on_the_same_port(front_house: House, trust: ssl.SSLContext | None) -> None:
    """By ALPN, or because nothing else is said."""
    if trust:
        trust.set_alpn_protocols(["http/1.1"])
    name = "localhost" if trust else None
    reader, writer = await asyncio.open_connection(*front_house.address, ssl=trust, server_hostname=name)
    writer.write(post(PATH, converse_body()).replace(b"\r\n", b"\r\nconnection: close\r\n", 1))
    answer = await reader.read()
    writer.close()
    assert answer.startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize("cuts", [(1,), (3, 17), (24,)])
async def test_a_preface_in_pieces(plain_house: House, cuts: Sequence[int]) -> None:
    """It is HTTP/2 once all of it is there, however it came."""
    plain_house.reset()
    reader, writer = await asyncio.open_connection(*plain_house.address)
    connection = zttp.Connection(zttp.CLIENT, protocol=zttp.HTTP2)
    connection.initiate_connection()
    begin = connection.data_to_send()
    assert begin.startswith(PREFACE)
    for start, end in zip((0, *cuts), (*cuts, len(begin)), strict=True):
        writer.write(begin[start:end])
        await writer.drain()
        await asyncio.sleep(0)
    settings_frame = await asyncio.wait_for(reader.readexactly(9), 10)
    writer.close()
    assert settings_frame[3] == 4


async def test_what_is_neither(plain_house: House) -> None:
    """The connection ends, and the next one is served."""
    for noise in (b"PRI * HTTP/2.1\r\n\r\n", PREFACE + b"garbage, garbage and more garbage", b"\x16\x03\x01"):
        await asyncio.wait_for(raw_exchange(plain_house.address, noise + b"\r\n\r\n"), 10)
    assert (await plain_house.http.post(PATH, json=converse_body())).status_code == 200


async def test_without_http_2(model: ServedModel, settings: GatewayConfig, endpoint: Path) -> None:
    """It can be turned off; ALPN then offers HTTP/1.1 alone."""
    off = msgspec.structs.replace(settings, http2=False)
    async with open_house(model, front=front_of(off)) as house:
        context = ssl.create_default_context(cafile=str(endpoint / "ca.pem"))
        context.set_alpn_protocols(["h2", "http/1.1"])
        _, writer = await asyncio.open_connection(*house.address, ssl=context, server_hostname="localhost")
        assert writer.get_extra_info("ssl_object").selected_alpn_protocol() == "http/1.1"
        writer.close()


async def test_a_stop_closes_idle_connections(model: ServedModel) -> None:
    """Those that have said nothing yet among them, at once."""
    async with open_house(model, drain_s=60, front=Front(http2=True)) as house:
        reader, writer = await asyncio.open_connection(*house.address)
        await house.http.get("/healthz")
    assert await asyncio.wait_for(reader.read(), 10) == b""
    writer.close()


async def test_the_endpoints_certificate_is_renewed(model: ServedModel, endpoint: Path, tmp_path: Path) -> None:
    """For connections to come, over both versions of HTTP and for clients that name no host; those there stay. What
    cannot be used is not taken."""
    files = {name: tmp_path / f"{name}.pem" for name in ("cert", "key")}
    for name, file in files.items():
        shutil.copy(endpoint / f"{name}.pem", file)
    front = front_of(GatewayConfig(tls_cert=str(files["cert"]), tls_key=str(files["key"])))
    assert front.endpoint is not None
    async with open_house(model, front=front) as house:
        before = await shown(house, endpoint, ["http/1.1"], "localhost")
        assert not front.endpoint.renew()
        assert main(["certs", str(tmp_path / "new"), "--endpoint"]) == 0
        files["cert"].write_bytes(b"half of it")
        with pytest.raises(ConfigError, match="cannot be used"):
            front.endpoint.renew()
        assert await shown(house, endpoint, ["http/1.1"], "localhost") == before
        for name, file in files.items():
            shutil.copy(tmp_path / "new" / f"{name}.pem", file)
        assert front.endpoint.renew()
        for protocol in ("h2", "http/1.1"):
            for host in ("localhost", "127.0.0.1"):
                assert await shown(house, tmp_path / "new", [protocol], host) != before


async def shown(house: House, directory: Path, protocols: list[str], host: str) -> bytes:
    """The certificate on a new connection, of the authority in this directory."""
    context = ssl.create_default_context(cafile=str(directory / "ca.pem"))
    context.set_alpn_protocols(protocols)
    _, writer = await asyncio.open_connection(*house.address, ssl=context, server_hostname=host)
    connection = writer.get_extra_info("ssl_object")
    assert connection.selected_alpn_protocol() == protocols[0]
    certificate: bytes = connection.getpeercert(binary_form=True)
    writer.close()
    return certificate


async def test_certificates_that_cannot_be_used(settings: GatewayConfig, tmp_path: Path) -> None:
    """One sentence each."""
    nothing = tmp_path / "nothing.pem"
    with pytest.raises(ConfigError, match=r"cannot read gateway\.tls_cert or gateway\.tls_key"):
        front_of(msgspec.structs.replace(settings, tls_key=str(nothing)))
    nothing.write_text("nothing")
    with pytest.raises(ConfigError, match="twinfer certs DIR --endpoint"):
        front_of(msgspec.structs.replace(settings, tls_key=str(nothing)))
    with pytest.raises(ConfigError, match="needs both of `tls_cert` and `tls_key`"):
        parse_config("", ["gateway.tls_cert=a"])
