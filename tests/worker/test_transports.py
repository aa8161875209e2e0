"""Which transport a worker ends up with, over real sockets."""

import contextlib
import logging
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from tests.certificates import Cluster
from tests.fakes import MODEL, POOL
from twinfer.core.capabilities import Endpoint, Role, WorkerIdentity
from twinfer.core.config import HandoffConfig, LinkConfig
from twinfer.core.errors import TransportError
from twinfer.core.ids import Epoch, WorkerId
from twinfer.core.process import WorkerSpec
from twinfer.engine.assemble import emulated_capabilities
from twinfer.kv.memory import PoolMemory
from twinfer.tls.credentials import Credentials
from twinfer.tls.roles import PeerRole
from twinfer.transport.host import host_id
from twinfer.transport.tcp import TcpSource
from twinfer.worker.transports import Sinks, Sources, make_sinks, start_sources, tcp_source

AUTO = LinkConfig()
TCP = LinkConfig(transport="tcp")
NOWHERE = Endpoint("shm", "@twinfer-kv-nowhere", host_id())


@pytest.fixture
def memory() -> Iterator[PoolMemory]:
    """Some blocks of the emulated layout."""
    block_bytes = emulated_capabilities(MODEL, POOL).layout.block_bytes
    with contextlib.closing(PoolMemory(4, block_bytes, prefault=False)) as memory:
        yield memory


@contextlib.contextmanager
def both(memory: PoolMemory, link: LinkConfig, credentials: Credentials | None) -> Iterator[tuple[Sources, Sinks]]:
    """A worker's ways out and in."""
    sources = start_sources(link, memory, "", TcpSource(credentials=credentials))
    sinks = make_sinks(link, credentials)
    yield sources, sinks
    sinks.close()
    sources.close()


def identity(*endpoints: Endpoint) -> WorkerIdentity:
    """A source that offers these."""
    capabilities = emulated_capabilities(MODEL, POOL)
    return WorkerIdentity(WorkerId("p"), Epoch("e"), Role.PREFILL, capabilities, "127.0.0.1:1", endpoints)


@pytest.mark.parametrize("encrypted", [False, True], ids=["plain", "tls"])
def test_auto_takes_the_next_when_the_first_cannot_be_connected(
    memory: PoolMemory, cluster: Cluster, encrypted: bool, caplog: pytest.LogCaptureFixture
):
    """Shared memory of this very host that cannot be reached is passed over for TCP, and the log says both."""
    caplog.set_level(logging.INFO)
    name = "tcp+tls" if encrypted else "tcp"
    credentials = cluster.credentials(PeerRole.WORKER) if encrypted else None
    with both(memory, AUTO, credentials) as (sources, sinks):
        shm, tcp = sources.endpoints
        assert [shm.transport, tcp.transport] == ["shm", name]
        best = sinks.connect(identity(shm, tcp))
        assert best.endpoint == shm
        assert "KV from p comes over shm because both workers are on one host" in caplog.text
        next_best = sinks.connect(identity(NOWHERE, tcp))
        assert next_best.endpoint == tcp
        assert "KV from p cannot come over shm" in caplog.text
        assert f"KV from p comes over {name} because nothing better could be connected" in caplog.text
        for connection in (best, next_best):
            connection.peer.close()


def test_what_is_wanted_is_the_only_one_tried(memory: PoolMemory, cluster: Cluster):
    """``tcp`` means TCP as it is configured, encrypted where there are certificates."""
    for credentials in (None, cluster.credentials(PeerRole.WORKER)):
        with both(memory, TCP, credentials) as (sources, sinks):
            connection = sinks.connect(identity(*sources.endpoints))
            assert [connection.endpoint] == list(sources.endpoints)
            assert connection.sink.capabilities.encrypted == (credentials is not None)
            connection.peer.close()


def test_nothing_can_be_connected(memory: PoolMemory):
    """The error tells what was wrong with each."""
    with both(memory, AUTO, None) as (sources, sinks):
        dead = msgspec.structs.replace(sources.endpoints[1], address="127.0.0.1:1")
        with pytest.raises(TransportError, match=r"@twinfer-kv-nowhere .*; .*127\.0\.0\.1:1 "):
            sinks.connect(identity(NOWHERE, dead))


def test_kv_follows_the_listening_address(memory: PoolMemory, cluster: Cluster):
    """A worker that listens on all addresses offers its KV there, under the name that it advertises."""
    spec = WorkerSpec(
        WorkerId("p"), MODEL, POOL, TCP, HandoffConfig(), "0.0.0.0:7001", tls=cluster.worker, advertise="localhost"
    )
    sources = start_sources(TCP, memory, "", tcp_source(spec, cluster.credentials(PeerRole.WORKER)))
    assert [endpoint.address.split(":")[0] for endpoint in sources.endpoints] == ["localhost"]
    sources.close()


def test_socket_files_go_to_their_directory(memory: PoolMemory, tmp_path: Path):
    """A worker that its parent started keeps its KV socket in the private directory."""
    spec = WorkerSpec(WorkerId("p"), MODEL, POOL, AUTO, HandoffConfig(), f"unix:{tmp_path}/p.sock")
    sources = start_sources(AUTO, memory, str(tmp_path), tcp_source(spec, None))
    assert Path(sources.endpoints[0].address).parent == tmp_path
    assert sources.endpoints[1].address.startswith("127.0.0.1:")
    sources.close()
