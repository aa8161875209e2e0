"""A control port among strangers: wrong certificates, roles and versions, noise, and connections that say nothing.

gRPC itself answers most of it, so what is tested here is what its settings make of it.
"""

import asyncio
import contextlib
import logging
import os
import random
import socket
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.certificates import Cluster
from tests.rpc.handlers import KEY, REPORT, EchoHandler, busy, cancel
from twinfer.core.config import TlsConfig
from twinfer.core.errors import ConfigError, ProtocolError, WorkerLost
from twinfer.core.ids import Epoch
from twinfer.core.messages import Heartbeat
from twinfer.rpc.channel import PortLimits
from twinfer.rpc.client import WorkerClient, connect
from twinfer.rpc.server import ControlServer
from twinfer.tls.credentials import Credentials, Pem, Shown
from twinfer.tls.roles import PeerRole

SHORT = PortLimits(handshake_s=0.5)
"""Nobody wants to wait five seconds for a stranger's end."""


@asynccontextmanager
async def serving(credentials: Credentials | None, limits: PortLimits = SHORT) -> AsyncIterator[ControlServer]:
    """An echoing worker."""
    server = ControlServer(EchoHandler(), KEY, "127.0.0.1:0", credentials=credentials, limits=limits)
    await server.start()
    yield server
    await server.stop(0)


@asynccontextmanager
async def calling(server: ControlServer, credentials: Credentials | None) -> AsyncIterator[WorkerClient]:
    """A client of it."""
    client = connect(server.address, KEY, credentials=credentials)
    yield client
    await client.close()


async def check_serves(server: ControlServer, credentials: Credentials | None) -> None:
    """Fail unless a good caller is answered, if need be after it has tried again for a while."""
    deadline = time.monotonic() + 30
    async with calling(server, credentials) as client:
        while True:
            try:
                assert await client.report(10.0) == REPORT
                return
            except WorkerLost:
                assert time.monotonic() < deadline
                await asyncio.sleep(0.05)


def unchecked(*configs: TlsConfig) -> Credentials:
    """Credentials that only the peer can object to; each renewal takes the next ones."""
    pems = iter([Pem(*(Path(path).read_bytes() for path in (each.ca, each.cert, each.key))) for each in configs])
    return Credentials(lambda: Shown(next(pems), ssl.create_default_context(), ssl.create_default_context()))


def port_of(server: ControlServer) -> tuple[str, int]:
    """For plain sockets."""
    host, _, port = server.address.rpartition(":")
    return host, int(port)


async def test_each_role_has_its_calls(cluster: Cluster, caplog: pytest.LogCaptureFixture):
    """A gateway asks for tokens and a worker passes KV, not the other way round; both may ask for a report."""
    beat = Heartbeat(Epoch("e"), ())
    async with serving(cluster.credentials(PeerRole.WORKER)) as server:
        async with calling(server, cluster.credentials(PeerRole.GATEWAY)) as gateway:
            assert await gateway.report(10.0) == REPORT
            stream = gateway.gateway_stream()
            stream.send_soon(cancel("a"))
            assert busy("a") == await anext(stream)
            with pytest.raises(ProtocolError, match="gateway, and spiffe://twinfer/worker is needed"):
                await anext(gateway.handoff_stream())
        async with calling(server, cluster.credentials(PeerRole.WORKER)) as worker:
            assert await worker.report(10.0) == REPORT
            handoff = worker.handoff_stream()
            handoff.send_soon(beat)
            assert beat == await anext(handoff)
            with pytest.raises(ProtocolError, match="worker, and spiffe://twinfer/gateway is needed"):
                await anext(worker.gateway_stream())
        assert server.refused.counts() == {"role": 2}
    assert "was turned away: its certificate is for spiffe://twinfer/gateway" in caplog.text


async def test_a_certificate_does_not_replace_the_key(cluster: Cluster):
    """Whoever has a certificate still has to prove the cluster key."""
    credentials = cluster.credentials(PeerRole.WORKER)
    async with serving(credentials) as server:
        stranger = connect(server.address, b"another key", credentials=credentials)
        with pytest.raises(ProtocolError, match="does not take our cluster key"):
            await stranger.report(10.0)
        await stranger.close()
        assert server.refused.counts() == {"key": 1}


@pytest.mark.parametrize("case", ["another authority", "expired", "no role", "plain"])
async def test_a_wrong_caller_is_turned_away(cluster: Cluster, tmp_path: Path, case: str):
    """No report for those without a good certificate; good callers are served on."""
    good = cluster.credentials(PeerRole.WORKER)
    callers: dict[str, Credentials | None] = {"plain": None}
    if case == "another authority":
        foreign = Cluster(tmp_path).worker
        callers[case] = unchecked(TlsConfig(cluster.worker.ca, foreign.cert, foreign.key))
    elif case == "expired":
        callers[case] = unchecked(cluster.expired(tmp_path))
    elif case == "no role":
        callers[case] = unchecked(cluster.files(tmp_path, None))
    async with serving(good) as server:
        async with calling(server, callers[case]) as stranger:
            with pytest.raises(ProtocolError if case == "no role" else WorkerLost):
                await stranger.report(5.0)
        await check_serves(server, good)


@pytest.mark.parametrize("case", ["another authority", "expired", "another host", "gateway"])
async def test_a_caller_trusts_no_wrong_worker(cluster: Cluster, tmp_path: Path, case: str):
    """Prompts go only to a worker of this cluster, on the host that was dialled; a gateway cannot pose as one."""
    configs = {
        "another authority": lambda: Cluster(tmp_path).worker,
        "expired": lambda: cluster.expired(tmp_path),
        "another host": lambda: cluster.files(tmp_path, PeerRole.WORKER, "10.9.8.7", local=False),
        "gateway": lambda: cluster.gateway,
    }
    gateway = cluster.credentials(PeerRole.GATEWAY)
    async with serving(unchecked(configs[case]())) as server, calling(server, gateway) as client:
        with pytest.raises(WorkerLost, match=r"(?i)certificate|host"):
            await client.report(5.0)


async def test_a_worker_shows_what_was_renewed(cluster: Cluster, tmp_path: Path):
    """On connections that begin afterwards, here with another host's certificate; those that are there stay."""
    elsewhere = cluster.files(tmp_path, PeerRole.WORKER, "10.9.8.7", local=False)
    own, gateway = unchecked(cluster.worker, elsewhere), cluster.credentials(PeerRole.GATEWAY)
    async with serving(own) as server, calling(server, gateway) as before:
        assert await before.report(10.0) == REPORT
        own.renew()
        assert await before.report(10.0) == REPORT
        async with calling(server, gateway) as after:
            with pytest.raises(WorkerLost, match=r"(?i)certificate|host"):
                await after.report(5.0)


async def test_a_caller_shows_what_was_renewed(cluster: Cluster):
    """The same client's next call is made with the new certificate, here with another role."""
    own = unchecked(cluster.worker, cluster.gateway)
    async with serving(cluster.credentials(PeerRole.WORKER)) as server, calling(server, own) as client:
        with pytest.raises(ProtocolError, match="spiffe://twinfer/gateway is needed"):
            await anext(client.gateway_stream())
        own.renew()
        stream = client.gateway_stream()
        stream.send_soon(cancel("a"))
        assert busy("a") == await anext(stream)


async def test_connections_of_former_certificates_are_closed(cluster: Cluster):
    """Not before the calls that are on them have ended."""
    own = unchecked(*[cluster.gateway, cluster.worker] * 3)
    async with serving(cluster.credentials(PeerRole.WORKER)) as server, calling(server, own) as client:
        stream = client.gateway_stream()
        for number in range(1, 4):
            own.renew()
            assert await client.report(10.0) == REPORT
            stream.send_soon(cancel(f"r{number}"))
            assert busy(f"r{number}") == await anext(stream)
        await stream.close()
        assert await client.report(10.0) == REPORT
        async with asyncio.timeout(30):
            while connections_to(server) > 1:
                await asyncio.sleep(0.01)
        assert await client.report(10.0) == REPORT


def connections_to(server: ControlServer) -> int:
    """That this process has open."""
    port = f":{port_of(server)[1]:04X}"
    rows = [line.split() for line in Path("/proc/self/net/tcp").read_text().splitlines()[1:]]
    return sum(remote.endswith(port) and state == "01" for _, _, remote, state, *_ in rows)


@pytest.mark.parametrize(("version", "accepted"), [(ssl.TLSVersion.TLSv1_3, True), (ssl.TLSVersion.TLSv1_2, False)])
async def test_only_tls_1_3(cluster: Cluster, version: ssl.TLSVersion, accepted: bool):
    """An older version is refused, whatever the certificate."""

    def shake_hands() -> bool:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.maximum_version = version
        context.set_alpn_protocols(["h2"])
        context.load_verify_locations(cluster.worker.ca)
        context.load_cert_chain(cluster.worker.cert, cluster.worker.key)
        with socket.create_connection(port_of(server), timeout=30) as plain:
            try:
                with context.wrap_socket(plain, server_hostname="127.0.0.1") as connection:
                    return bool(connection.recv(1))
            except (ssl.SSLError, ConnectionError):
                return False

    async with serving(cluster.credentials(PeerRole.WORKER)) as server:
        assert accepted == await asyncio.to_thread(shake_hands)


NOISE = {
    "http": b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    "random": random.Random(7).randbytes(1 << 16),
    "zeros": bytes(4096),
    "half a preface": b"PRI * HTTP/2.0\r\n",
    "giant frame": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\xff\xff\xff\x04\x00\x00\x00\x00\x00" + bytes(1024),
    "half a hello": b"\x16\x03\x01\x02\x00\x01\x00",
    "nothing": b"",
}


@pytest.mark.parametrize("noise", NOISE.values(), ids=NOISE)
@pytest.mark.parametrize("encrypted", [False, True], ids=["plain", "tls"])
async def test_noise_ends_that_connection_only(cluster: Cluster, encrypted: bool, noise: bytes):
    """Random bytes, lengths that lie and half a hello are hung up on, soon, and others are served."""
    good = cluster.credentials(PeerRole.WORKER) if encrypted else None

    def stranger() -> None:
        connection = socket.create_connection(port_of(server), timeout=30)
        with connection, contextlib.suppress(ConnectionError):
            connection.sendall(noise)
            while connection.recv(4096):
                pass

    async with serving(good) as server:
        await asyncio.to_thread(stranger)
        await check_serves(server, good)


@pytest.mark.parametrize("encrypted", [False, True], ids=["plain", "tls"])
async def test_silent_connections_are_bounded(cluster: Cluster, encrypted: bool):
    """Connections that say nothing are few and short-lived: one that is up works on, and a new one gets through."""
    good = cluster.credentials(PeerRole.WORKER) if encrypted else None
    async with serving(good, PortLimits(0.5, connections=16)) as server, calling(server, good) as before:
        assert await before.report(10.0) == REPORT
        with contextlib.ExitStack() as stack:
            for _ in range(64):
                stack.enter_context(socket.create_connection(port_of(server), timeout=30))
            assert await before.report(10.0) == REPORT
            await check_serves(server, good)
            assert len(os.listdir("/proc/self/fd")) < 64 * 2 + 16 + 32


async def test_the_log_is_not_flooded(caplog: pytest.LogCaptureFixture):
    """A hundred calls without the key leave some lines, not a hundred."""
    async with serving(None) as server:
        stranger = connect(server.address, b"another key")
        for _ in range(100):
            with pytest.raises(ProtocolError):
                await stranger.report(10.0)
        await stranger.close()
    lines = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert 0 < len(lines) <= 40


async def test_leaving_the_machine_needs_credentials(cluster: Cluster):
    """With certificates a worker may listen on all addresses, and be called elsewhere; a socket file stays plain."""
    credentials = cluster.credentials(PeerRole.WORKER)
    server = ControlServer(EchoHandler(), KEY, "0.0.0.0:0", credentials=credentials)
    address = await server.start()
    client = connect(f"localhost:{address.rpartition(':')[2]}", KEY, credentials=credentials)
    assert await client.report(10.0) == REPORT
    await client.close()
    await server.stop(0)
    with pytest.raises(ConfigError, match="is no address"):
        connect("somewhere", KEY, credentials=credentials)
