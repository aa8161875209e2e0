"""Which transports a worker starts, by its configuration and machine."""

import contextlib
import sys
from collections.abc import Iterator

import pytest

from twinfer.core.config import LinkConfig
from twinfer.core.errors import ConfigError
from twinfer.kv.memory import PoolMemory
from twinfer.transport.nixl import Fabric, nixl_available, rdma_devices
from twinfer.transport.tcp import TcpSource
from twinfer.worker.transports import make_sinks, start_sources

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs memfd")
needs_nixl = pytest.mark.skipif(nixl_available() is not None, reason=str(nixl_available()))


def fabric_of(link: LinkConfig) -> Fabric:
    """NIXL on loopback, as the configuration says."""
    return Fabric("127.0.0.1", link.nixl_backend, link.trust_network)


@pytest.fixture
def memory() -> Iterator[PoolMemory]:
    """A small pool."""
    with contextlib.closing(PoolMemory(2, 64, prefault=False)) as memory:
        yield memory


@pytest.mark.parametrize(
    ("link", "sources", "sinks"),
    [
        pytest.param(
            LinkConfig(trust_network=True),
            ["shm", "tcp"],
            ["shm", "tcp"],
            marks=pytest.mark.skipif(bool(rdma_devices()), reason="has RDMA, so that NIXL is used unasked"),
        ),
        (LinkConfig(), ["shm", "tcp"], ["shm", "tcp"]),
        (LinkConfig(transport="shm"), ["shm"], ["shm", "tcp"]),
        (LinkConfig(transport="tcp"), ["tcp"], ["shm", "tcp"]),
        pytest.param(LinkConfig(transport="nixl"), ["nixl"], ["shm", "tcp", "nixl"], marks=needs_nixl),
    ],
)
def test_what_a_worker_starts(memory: PoolMemory, link: LinkConfig, sources: list[str], sinks: list[str]):
    """NIXL where it is asked for, or where it is fast and trusted; nothing that was not asked for otherwise."""
    with (
        contextlib.closing(start_sources(link, memory, "", TcpSource(), fabric_of(link))) as started,
        contextlib.closing(make_sinks(link, None, fabric_of(link))) as made,
    ):
        assert (sources, sinks) == ([endpoint.transport for endpoint in started.endpoints], list(made.members))


@needs_nixl
def test_untrusted_networks_are_refused_at_start(memory: PoolMemory, monkeypatch: pytest.MonkeyPatch):
    """Neither end opens a port to strangers."""
    monkeypatch.setenv("UCX_NET_DEVICES", "all")
    link = LinkConfig(transport="nixl")
    with pytest.raises(ConfigError, match="trust_network"):
        start_sources(link, memory, "", TcpSource(), fabric_of(link))
    with pytest.raises(ConfigError, match="trust_network"):
        make_sinks(link, None, fabric_of(link))
