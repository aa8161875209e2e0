"""A KV port among strangers: wrong certificates, no certificates, noise, and connections that say nothing.

Whatever comes, the connection is closed with a reason in the log, and the next good sink is served.
"""

import contextlib
import logging
import os
import random
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.certificates import Cluster
from twinfer.core.capabilities import Endpoint
from twinfer.core.config import TlsConfig
from twinfer.core.errors import ConfigError, TransportError
from twinfer.core.ids import HandoffId
from twinfer.kv.memory import PoolMemory
from twinfer.tls.credentials import Credentials, Pem, Shown
from twinfer.tls.roles import PeerRole
from twinfer.transport.digest import digest_blocks
from twinfer.transport.host import host_id
from twinfer.transport.listener import MAX_NEWCOMERS
from twinfer.transport.tcp import TcpSink, TcpSource

HANDOFF = HandoffId("ab" * 16)
SIZE = 100
PATIENCE_S = 0.5


class Port:
    """A source of 8 blocks, all offered, that its own kind of sink can read."""

    def __init__(self, credentials: Credentials | None) -> None:
        self.memory = PoolMemory(8, SIZE, prefault=False)
        self.memory.view[:] = random.Random(0).randbytes(8 * SIZE)
        self.credentials = credentials
        self.source = TcpSource(credentials=credentials, patience_s=PATIENCE_S)
        self.endpoint = self.source.start(self.memory)
        self.source.offer(HANDOFF, range(8))

    @property
    def address(self) -> tuple[str, int]:
        """For plain sockets."""
        host, _, port = self.endpoint.address.rpartition(":")
        return host, int(port)

    def pull(self, credentials: Credentials | None, address: str = "") -> int:
        """Connect and pull block 0, if need be by way of another address."""
        endpoint = Endpoint(self.endpoint.transport, address or self.endpoint.address, self.endpoint.host)
        with contextlib.closing(TcpSink(credentials=credentials)) as sink:
            sink.admit(HANDOFF)
            with contextlib.closing(sink.connect(endpoint, SIZE)) as peer:
                return sink.pull(peer, HANDOFF, [0], [memoryview(bytearray(SIZE))], time.monotonic() + 60)

    def check_serves(self) -> None:
        """Fail unless a good sink gets the right bytes."""
        assert digest_blocks(self.memory, [0]) == self.pull(self.credentials)

    def close(self) -> None:
        """End it."""
        self.source.close()
        self.memory.close()


@pytest.fixture(params=["tcp", "tcp+tls"])
def port(request: pytest.FixtureRequest, cluster: Cluster) -> Iterator[Port]:
    """Of both kinds."""
    credentials = cluster.credentials(PeerRole.WORKER) if request.param == "tcp+tls" else None
    with contextlib.closing(Port(credentials)) as port:
        yield port


@pytest.fixture
def tls_port(cluster: Cluster) -> Iterator[Port]:
    """The encrypted one."""
    with contextlib.closing(Port(cluster.credentials(PeerRole.WORKER))) as port:
        yield port


def insist(*configs: TlsConfig, show: bool = True) -> Credentials:
    """Credentials that were never checked, so that only the peer can object to them; renewals take the next ones."""

    def context(protocol: int, config: TlsConfig) -> ssl.SSLContext:
        made = ssl.SSLContext(protocol)
        made.load_verify_locations(config.ca)
        if show:
            made.load_cert_chain(config.cert, config.key)
        made.verify_mode = ssl.CERT_REQUIRED
        return made

    def shown(config: TlsConfig) -> Shown:
        kinds = (ssl.PROTOCOL_TLS_SERVER, ssl.PROTOCOL_TLS_CLIENT)
        pem = Pem(*(Path(path).read_bytes() for path in config.files))
        return Shown(pem, *(context(kind, config) for kind in kinds))

    following = iter(configs)
    return Credentials(lambda: shown(next(following)))


def wait_until_cut(connection: socket.socket) -> None:
    """Read until the other side hangs up."""
    with contextlib.suppress(ConnectionError):
        while connection.recv(4096):
            pass


def wait_until(condition: Callable[[], bool]) -> None:
    """The peer may know of its end before the source counts it."""
    deadline = time.monotonic() + 10
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert condition()


def wait_logged(caplog: pytest.LogCaptureFixture, words: str) -> None:
    """The peer may know of its end before the log does."""
    deadline = time.monotonic() + 10
    while words not in caplog.text and time.monotonic() < deadline:
        time.sleep(0.01)
    assert words in caplog.text


def test_a_good_pair_speaks_tls_1_3(tls_port: Port):
    """What both ends agree on is TLS 1.3, and the KV arrives."""
    assert tls_port.credentials is not None
    with (
        socket.create_connection(tls_port.address) as plain,
        tls_port.credentials.client.wrap_socket(plain, server_hostname="127.0.0.1") as connection,
    ):
        assert connection.version() == "TLSv1.3"
    tls_port.check_serves()
    assert tls_port.source.capabilities.encrypted
    assert tls_port.endpoint.transport == "tcp+tls"


def test_older_tls_is_refused(tls_port: Port, cluster: Cluster, caplog: pytest.LogCaptureFixture):
    """A peer that can only TLS 1.2 gets no connection, though its certificate is good."""
    old = insist(cluster.worker)
    old.client.maximum_version = ssl.TLSVersion.TLSv1_2
    with pytest.raises(TransportError, match=r"(?i)protocol version"):
        tls_port.pull(old)
    wait_logged(caplog, "unsupported protocol")
    tls_port.check_serves()


@pytest.mark.parametrize(
    ("case", "sink_hears", "source_logs"),
    [
        (
            "another authority",
            "does not take our certificate: tlsv1 alert unknown ca",
            "unknown ca|self-signed|unable to get local issuer",
        ),
        ("expired", "does not take our certificate: .*expired", "certificate has expired"),
        ("no role", "broke off|reset|pipe", "no role, and spiffe://twinfer/worker is needed"),
        ("gateway", "broke off|reset|pipe", "spiffe://twinfer/gateway, and spiffe://twinfer/worker is needed"),
        (
            "no certificate",
            "does not take our certificate: .*certificate required",
            "peer did not return a certificate",
        ),
    ],
)
def test_a_sink_with_a_wrong_certificate_is_turned_away(
    tls_port: Port,
    cluster: Cluster,
    tmp_path: Path,
    case: str,
    sink_hears: str,
    source_logs: str,
    caplog: pytest.LogCaptureFixture,
):
    """Nobody but a worker of this cluster reads a byte; the log says why, with the address."""
    if case == "another authority":
        foreign = Cluster(tmp_path).worker
        config = TlsConfig(cluster.worker.ca, foreign.cert, foreign.key)
    elif case == "expired":
        config = cluster.expired(tmp_path)
    elif case == "no role":
        config = cluster.files(tmp_path, None)
    else:
        config = cluster.gateway
    with pytest.raises(TransportError, match=f"(?i){sink_hears}"):
        tls_port.pull(insist(config, show=case != "no certificate"))
    wait_logged(caplog, "closed the KV connection of ('127.0.0.1'")
    assert [record for record in caplog.records if any(word in record.getMessage() for word in source_logs.split("|"))]
    reason = "role" if "needed" in source_logs else "certificate"
    wait_until(lambda: tls_port.source.refused.counts() == {reason: 1})
    tls_port.check_serves()


@pytest.mark.parametrize(
    ("case", "message"),
    [
        ("another authority", "unable to get local issuer certificate|self-signed"),
        ("expired", "certificate has expired"),
        ("another host", "IP address mismatch|not valid for '127.0.0.1'"),
        ("gateway", "unsuitable certificate purpose|unsupported certificate purpose"),
        ("no role", "no role, and spiffe://twinfer/worker is needed"),
    ],
)
def test_a_sink_trusts_no_wrong_source(cluster: Cluster, tmp_path: Path, case: str, message: str):
    """KV is pulled only from a worker of this cluster, on the host that was dialled."""
    if case == "another authority":
        config = Cluster(tmp_path).worker
    elif case == "expired":
        config = cluster.expired(tmp_path)
    elif case == "another host":
        config = cluster.files(tmp_path, PeerRole.WORKER, "10.9.8.7", local=False)
    elif case == "gateway":
        config = cluster.gateway
    else:
        config = cluster.files(tmp_path, None)
    with (
        contextlib.closing(Port(insist(config))) as port,
        contextlib.closing(TcpSink(credentials=cluster.credentials(PeerRole.WORKER))) as sink,
        pytest.raises(TransportError, match=message),
    ):
        sink.connect(port.endpoint, SIZE)


def test_both_ends_show_what_was_renewed(cluster: Cluster, tmp_path: Path):
    """On connections that begin afterwards: a source with another host's certificate, a sink with another role's."""
    elsewhere = cluster.files(tmp_path, PeerRole.WORKER, "10.9.8.7", local=False)
    source, sink = insist(cluster.worker, cluster.worker, elsewhere), insist(cluster.worker, cluster.gateway)
    with contextlib.closing(Port(source)) as port:
        for _ in range(2):
            port.check_serves()
            source.renew()
        with pytest.raises(TransportError, match=r"IP address mismatch|not valid for '127.0.0.1'"):
            port.pull(cluster.credentials(PeerRole.WORKER))
    with contextlib.closing(Port(cluster.credentials(PeerRole.WORKER))) as port:
        port.pull(sink)
        sink.renew()
        with pytest.raises(TransportError, match=r"broke off|reset|pipe"):
            port.pull(sink)
        wait_until(lambda: port.source.refused.counts() == {"role": 1})


def test_plain_and_encrypted_do_not_mix(tls_port: Port, cluster: Cluster, caplog: pytest.LogCaptureFixture):
    """Neither end falls back to the other's way: a plain sink and a plain source are errors to encrypted ones."""
    with pytest.raises(TransportError, match=r"broke off|reset|no KV source"):
        tls_port.pull(None)
    wait_logged(caplog, "TLS handshake")
    with contextlib.closing(Port(None)) as plain:
        with pytest.raises(TransportError, match="TLS handshake"):
            plain.pull(cluster.credentials(PeerRole.WORKER))
        plain.check_serves()
    tls_port.check_serves()


class Tap:
    """Somebody on the way from sinks to a source, who keeps what passes, and may change one byte of it.

    Args:
        target: the source's address.
        spoilt: the number of the byte from the source that is changed; ``None`` for none.
    """

    def __init__(self, target: tuple[str, int], spoilt: int | None = None) -> None:
        self.heard = bytearray()
        self._target = target
        self._spoilt = spoilt
        self._server = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._server.getsockname()[1]}"
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def close(self) -> None:
        """Return when all that it carried has ended."""
        self._server.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._server.close()

    def _serve(self) -> None:
        while True:
            try:
                near, _ = self._server.accept()
            except OSError:
                return
            with near, socket.create_connection(self._target) as far:
                back = threading.Thread(target=self._carry, args=(near, far, False))
                back.start()
                self._carry(far, near, True)
                back.join()

    def _carry(self, start: socket.socket, end: socket.socket, from_source: bool) -> None:
        with contextlib.suppress(OSError):
            while part := bytearray(start.recv(4096)):
                if from_source:
                    first, self.heard = len(self.heard), self.heard + part
                    if self._spoilt is not None and first <= self._spoilt < len(self.heard):
                        part[self._spoilt - first] ^= 1
                end.sendall(part)
        for connection in (start, end):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)


def test_a_listener_on_the_way_reads_no_kv(port: Port):
    """The very bytes pass in the clear within a machine, and under TLS not a piece of them does."""
    with contextlib.closing(Tap(port.address)) as tap:
        assert digest_blocks(port.memory, [0]) == port.pull(port.credentials, tap.address)
    block = bytes(port.memory.view[:SIZE])
    assert len(tap.heard) >= SIZE
    assert {block[start : start + 8] in tap.heard for start in range(SIZE - 8)} == {port.credentials is None}


def test_what_is_changed_on_the_way_is_not_taken(tls_port: Port):
    """A byte of the answer that differs ends the pull: nothing is taken for KV that nobody sent."""
    with contextlib.closing(Tap(tls_port.address)) as whole:
        tls_port.pull(tls_port.credentials, whole.address)
    for spoilt in (len(whole.heard) - 10, len(whole.heard) - SIZE // 2):  # signatures differ by a byte or two
        with contextlib.closing(Tap(tls_port.address, spoilt)) as tap, pytest.raises(TransportError):
            tls_port.pull(tls_port.credentials, tap.address)


NOISE = {
    "http": b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    "random": random.Random(7).randbytes(1 << 16),
    "zeros": bytes(4096),
    "giant count": struct.pack("<4sHI", b"TWQ1", 32, 0xFFFFFFFF) + bytes(1024),
    "giant record": b"\x16\x03\x03\xff\xff" + bytes(1024),
    "half a hello": b"\x16\x03\x01\x02\x00\x01\x00",
    "cut header": b"TWQ1\x20",
}


@pytest.mark.parametrize("noise", NOISE.values(), ids=NOISE)
def test_noise_ends_that_connection_only(port: Port, noise: bytes, caplog: pytest.LogCaptureFixture):
    """Random bytes, lengths that lie and messages that stop half-way: closed with a reason, and others are served."""
    caplog.set_level(logging.INFO)
    with socket.create_connection(port.address, timeout=30) as connection:
        with contextlib.suppress(OSError):  # closed already
            connection.sendall(noise)
            connection.shutdown(socket.SHUT_WR)
        wait_until_cut(connection)
    wait_logged(caplog, "KV connection of ('127.0.0.1'")
    port.check_serves()


def test_a_peer_that_says_nothing_is_cut_off(port: Port, caplog: pytest.LogCaptureFixture):
    """A connection has so long to show who it is; then it is closed, and it is said so."""
    begin = time.monotonic()
    with socket.create_connection(port.address, timeout=30) as connection:
        wait_until_cut(connection)
    assert time.monotonic() - begin >= PATIENCE_S
    wait_logged(caplog, "within 0.5 s")
    port.check_serves()


def test_a_peer_that_drips_is_cut_off(port: Port):
    """One byte now and then does not buy time."""
    with socket.create_connection(port.address, timeout=30) as connection:
        begin = time.monotonic()
        with contextlib.suppress(ConnectionError):
            for byte in NOISE["half a hello"] * 1000:
                connection.sendall(bytes([byte]))
                time.sleep(PATIENCE_S / 10)
        assert time.monotonic() - begin < 100 * PATIENCE_S


def test_silent_connections_keep_nobody_out(port: Port, caplog: pytest.LogCaptureFixture):
    """Ever more connections that say nothing: the oldest make room, threads stay bounded, and a good sink is served."""
    before = threading.active_count()
    with contextlib.ExitStack() as stack:
        for _ in range(5 * MAX_NEWCOMERS):
            stack.enter_context(socket.create_connection(port.address, timeout=30))
        port.check_serves()
        assert threading.active_count() - before <= 256
        held = len(os.listdir("/proc/self/fd"))
        deadline = time.monotonic() + 30
        while threading.active_count() > before + 2 and time.monotonic() < deadline:
            time.sleep(0.01)
        assert threading.active_count() <= before + 2
        assert len(os.listdir("/proc/self/fd")) <= held
    assert len(caplog.records) <= 60
    assert "others wait" in caplog.text


def test_a_flood_of_noise_does_not_flood_the_log(port: Port, caplog: pytest.LogCaptureFixture):
    """A hundred broken connections in a moment leave some lines, not a hundred."""
    for _ in range(100):
        with socket.create_connection(port.address, timeout=30) as connection, contextlib.suppress(ConnectionError):
            connection.sendall(NOISE["http"])
            wait_until_cut(connection)
    assert 0 < len(caplog.records) <= 80
    port.check_serves()


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
def test_a_wildcard_needs_a_name_to_announce(cluster: Cluster, host: str):
    """Listening everywhere says nothing about where to call."""
    with pytest.raises(ConfigError, match="--advertise"):
        TcpSource(host, credentials=cluster.credentials(PeerRole.WORKER))


def test_the_advertised_host_is_announced(cluster: Cluster):
    """What is bound and what is announced may differ; the certificate must fit the latter."""
    credentials = cluster.credentials(PeerRole.WORKER)
    memory = PoolMemory(1, SIZE, prefault=False)
    source = TcpSource("0.0.0.0", credentials=credentials, advertise="localhost")
    endpoint = source.start(memory)
    try:
        port = endpoint.address.rpartition(":")[2]
        assert endpoint == Endpoint("tcp+tls", f"localhost:{port}", host_id())
        with contextlib.closing(TcpSink(credentials=credentials)) as sink:
            sink.connect(endpoint, SIZE).close()
    finally:
        source.close()
        memory.close()
