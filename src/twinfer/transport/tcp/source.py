"""The source's end: a thread per connection that answers requests with bytes straight from the pool."""

import logging
import socket
from collections.abc import Sequence

from twinfer.core.capabilities import Endpoint
from twinfer.core.errors import ConfigError
from twinfer.core.ids import HandoffId
from twinfer.transport.base import SourceMemory
from twinfer.transport.host import host_id
from twinfer.transport.listener import Listener
from twinfer.transport.offers import OfferBook
from twinfer.transport.tcp import wire

_STALL_S = 30.0
"""A sink that takes no byte for that long is cut off."""
_MAX_SEND_BYTES = 8 << 20

logger = logging.getLogger(__name__)


class TcpSource:
    """Serves offered blocks of one pool to whoever knows the handoff, whose id is 128 random bits.

    Args:
        host: a loopback address; elsewhere TCP would need TLS, which is not there yet.
        port: 0 takes a free one.
    """

    capabilities = wire.TCP_CAPABILITIES

    def __init__(self, host: str = "127.0.0.1", port: int = 0) -> None:
        if not wire.is_loopback(host):
            raise ConfigError(f"KV would leave this machine unencrypted from {host}: use 127.0.0.1")
        self._host = host
        self._port = port
        self._offers = OfferBook()
        self._listener: Listener | None = None

    def start(self, memory: SourceMemory) -> Endpoint:
        """Listen; see ``KVSource``."""
        try:
            family = socket.AF_INET6 if ":" in self._host else socket.AF_INET
            server = socket.create_server((self._host, self._port), family=family, backlog=128)
        except OSError as error:
            raise ConfigError(f"KV cannot be served on {self._host}:{self._port}: {error}; choose port 0") from error
        port = server.getsockname()[1]
        self._listener = Listener(server, _Server(memory, self._offers).serve, "kv-tcp")
        return Endpoint("tcp", f"{self._host}:{port}", host_id())

    def offer(self, handoff: HandoffId, blocks: Sequence[int]) -> None:
        """These blocks may be read under this handoff."""
        self._offers.offer(handoff, blocks)

    def release(self, handoff: HandoffId) -> None:
        """Not any more; an answer under way breaks off."""
        self._offers.release(handoff)

    def close(self) -> None:
        """Cut off all sinks."""
        if self._listener is not None:
            self._listener.close()


class _Server:
    """Talks to one sink at a time, on that connection's thread."""

    def __init__(self, memory: SourceMemory, offers: OfferBook) -> None:
        self._memory = memory
        self._offers = offers

    def serve(self, connection: socket.socket) -> None:
        """Answer until the sink leaves or breaks the protocol."""
        try:
            peer = connection.getpeername()
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            wire.send_greeting(connection, wire.Greeting(self._memory.block_bytes, self._memory.num_blocks))
            while (request := wire.receive_request(connection, _STALL_S)) is not None:
                self._answer(connection, request)
        except wire.WireError as error:
            logger.warning("closed the KV connection of %s: %s", peer, error)
        except OSError as error:
            logger.info("a KV connection ended: %s", error)

    def _answer(self, connection: socket.socket, request: wire.Request) -> None:
        reason = self._offers.refusal(request.handoff, request.blocks)
        if reason is not None:
            connection.sendall(wire.refusal(reason))
            return
        size, pool = self._memory.block_bytes, self._memory.view
        views = [memoryview(wire.accept_header(len(request.blocks) * size))]
        views += [pool[block * size : (block + 1) * size] for block in request.blocks]
        first = 0
        while first < len(views):
            if not self._offers.is_open(request.handoff):
                raise wire.WireError(f"the offer {request.handoff} was released while it was read")
            sent = connection.sendmsg(wire.iovecs(views, first, _MAX_SEND_BYTES))
            first = wire.advance(views, first, sent)
