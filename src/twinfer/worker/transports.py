"""The transports of one worker: every way its pool can be read, and every way it can read others'."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from twinfer.core.capabilities import Endpoint, WorkerIdentity
from twinfer.core.ids import HandoffId
from twinfer.transport.base import KVSink, KVSource, Peer
from twinfer.transport.choose import choose_endpoint

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Sources:
    """All sources of a pool; a handoff is offered on each, and its sink reads from one."""

    members: tuple[KVSource, ...]

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
        """Reach a source by the best transport that both sides have.

        Raises:
            TransportError: none fits, or it cannot be reached.
        """
        endpoint, reason = choose_endpoint(source.endpoints, self.host, self.wanted, tuple(self.members))
        logger.info("KV from %s comes over %s", source.worker, reason)
        sink = self.members[endpoint.transport]
        return Connection(sink, sink.connect(endpoint, source.capabilities.layout.block_bytes), endpoint)

    def close(self) -> None:
        """Fence everything."""
        for sink in self.members.values():
            sink.close()
