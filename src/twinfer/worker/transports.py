"""The transports of one worker: every way its pool can be read, and every way it can read others'."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from twinfer.core.address import host_port, is_unix
from twinfer.core.capabilities import Endpoint, WorkerIdentity
from twinfer.core.config import LinkConfig
from twinfer.core.errors import TransportError
from twinfer.core.ids import HandoffId
from twinfer.core.process import WorkerSpec
from twinfer.kv.memory import PoolMemory
from twinfer.tls.credentials import Credentials
from twinfer.transport.base import KVSink, KVSource, Peer
from twinfer.transport.choose import rank_endpoints
from twinfer.transport.gate import Pace
from twinfer.transport.host import host_id
from twinfer.transport.nixl import LOOPBACK, Fabric, NixlSink, NixlSource, nixl_available, rdma_devices
from twinfer.transport.shm import ShmSink, ShmSource
from twinfer.transport.tcp.sink import TcpSink
from twinfer.transport.tcp.source import TcpSource
from twinfer.transport.throttle import unlimited

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Sources:
    """All sources of a pool; a handoff is offered on each, and its sink reads from one.

    Attributes:
        endpoints: where they listen, in the same order.
    """

    members: tuple[KVSource, ...]
    endpoints: tuple[Endpoint, ...]

    def offer(self, handoff: HandoffId, blocks: Sequence[int]) -> None:
        """These blocks may be read under this handoff."""
        for source in self.members:
            source.offer(handoff, blocks)

    def release(self, handoff: HandoffId) -> None:
        """Nothing may be read under it any more."""
        for source in self.members:
            source.release(handoff)

    def close(self) -> None:
        """Cut off all peers."""
        for source in self.members:
            source.close()


@dataclass(frozen=True, slots=True)
class Connection:
    """A source's pool, and the sink that reaches it."""

    sink: KVSink[Any]
    peer: Peer
    endpoint: Endpoint


@dataclass(frozen=True, slots=True)
class Sinks:
    """All sinks of a worker, by transport.

    Attributes:
        members: by ``Endpoint.transport``.
        host: this machine.
        wanted: ``auto`` or one transport.
    """

    members: dict[str, KVSink[Any]]
    host: str
    wanted: str

    def connect(self, source: WorkerIdentity) -> Connection:
        """Reach a source by the best transport that both sides have and that works.

        Raises:
            TransportError: none fits, or none can be connected.
        """
        block_bytes = source.capabilities.layout.block_bytes
        failures: list[str] = []
        for endpoint, reason in rank_endpoints(source.endpoints, self.host, self.wanted, tuple(self.members)):
            sink = self.members[endpoint.transport]
            try:
                peer = sink.connect(endpoint, block_bytes)
            except TransportError as error:
                logger.warning("KV from %s cannot come over %s: %s", source.worker, endpoint.transport, error)
                failures.append(str(error))
            else:
                why = "because nothing better could be connected" if failures else reason
                logger.info("KV from %s comes over %s %s", source.worker, endpoint.transport, why)
                return Connection(sink, peer, endpoint)
        raise TransportError("; ".join(failures))

    def close(self) -> None:
        """Fence everything."""
        for sink in self.members.values():
            sink.close()


def tcp_source(spec: WorkerSpec, credentials: Credentials | None) -> TcpSource:
    """KV over TCP, on the host on which the worker listens."""
    host = "127.0.0.1" if is_unix(spec.listen) else host_port(spec.listen).host
    return TcpSource(host, spec.kv_port, credentials, spec.advertise)


def nixl_fabric(spec: WorkerSpec) -> Fabric:
    """The network that NIXL uses: that on which the worker listens."""
    host = "127.0.0.1" if is_unix(spec.listen) else spec.advertise or host_port(spec.listen).host
    return Fabric(host, spec.link.nixl_backend, spec.link.trust_network)


def start_sources(
    link: LinkConfig, memory: PoolMemory, socket_dir: str, tcp: TcpSource, fabric: Fabric = LOOPBACK
) -> Sources:
    """Every way out of this pool that the configuration allows and the machine has.

    Raises:
        ConfigError: the one that is asked for cannot be had here.
    """
    makers: dict[str, Callable[[], KVSource]] = {
        "shm": lambda: ShmSource(Path(socket_dir) if socket_dir else None),
        "nixl": lambda: NixlSource(fabric),
        "tcp": lambda: tcp,
    }
    has = {"shm": memory.fd is not None, "nixl": _has_fast_nixl(fabric), "tcp": True}
    names = (link.transport,) if link.transport in makers else tuple(name for name in makers if has[name])
    members = tuple(makers[name]() for name in names)
    return Sources(members, tuple(source.start(memory) for source in members))


def make_sinks(
    link: LinkConfig, credentials: Credentials | None = None, fabric: Fabric = LOOPBACK, pace: Pace = unlimited
) -> Sinks:
    """Every way in, all of them at one pace.

    Raises:
        ConfigError: NIXL is asked for and cannot be had here.
    """
    tcp = TcpSink(link.tcp_connections, pace, credentials)
    members: dict[str, KVSink[Any]] = {"shm": ShmSink(pace), tcp.capabilities.name: tcp}
    if link.transport == "nixl" or (link.transport == "auto" and _has_fast_nixl(fabric)):
        members["nixl"] = NixlSink(fabric, pace)
    wanted = tcp.capabilities.name if link.transport == "tcp" else link.transport
    return Sinks(members, host_id(), wanted)


def _has_fast_nixl(fabric: Fabric) -> bool:
    """Whether NIXL is worth having unasked: RDMA is there, and may be used without encryption."""
    return fabric.trusted and bool(rdma_devices()) and nixl_available() is None
