"""The source's end: a thread per connection that answers requests with bytes straight from the pool."""

import logging
import socket
from collections.abc import Sequence

from twinfer.core.address import HOW_TO_LEAVE, HostPort, announced, is_loopback
from twinfer.core.capabilities import Endpoint
from twinfer.core.errors import ConfigError
from twinfer.core.ids import HandoffId
from twinfer.core.sparse_log import SparseLog
from twinfer.core.tally import Tally
from twinfer.tls.credentials import Credentials
from twinfer.transport.base import SourceMemory, TransportCapabilities
from twinfer.transport.host import host_id
from twinfer.transport.listener import PATIENCE_S, Listener, Settle
from twinfer.transport.offers import OfferBook
from twinfer.transport.tcp import flow, wire
from twinfer.transport.tcp.meeting import introduce, prepare

_STALL_S = 30.0
"""A sink that takes no byte for that long is cut off."""
_IDLE_S = 300.0
"""A connection that asks for nothing for that long is closed; the sink opens another when it needs one."""

logger = logging.getLogger(__name__)


class TcpSource:
    """Serves offered blocks of one pool to whoever knows the handoff, whose id is 128 random bits.

    Args:
        host: address to bind, loopback where there are no credentials.
        port: 0 takes a free one.
        credentials: for TLS; then only workers of the cluster are answered.
        advertise: host to announce instead of the one that is bound.
        patience_s: time in which a new peer must show who it is: by its certificate, else by a request it may make.

    Attributes:
        refused: peers turned away, by ``certificate`` or ``role``.
    """

    def __init__(
        self,
        host: str = "127.0.0.1",
        port: int = 0,
        credentials: Credentials | None = None,
        advertise: str = "",
        patience_s: float = PATIENCE_S,
    ) -> None:
        if credentials is None and not is_loopback(host):
            raise ConfigError(f"KV would leave this machine unencrypted from {host}: use 127.0.0.1, or {HOW_TO_LEAVE}")
        self._listen = HostPort(host, port)
        self._credentials = credentials
        self._advertise = announced(host, advertise)
        self._patience_s = patience_s
        self._offers = OfferBook()
        self.refused = Tally()
        self._listener: Listener | None = None

    @property
    def capabilities(self) -> TransportCapabilities:
        """What this transport can do."""
        return wire.capabilities(encrypted=self._credentials is not None)

    def start(self, memory: SourceMemory) -> Endpoint:
        """Listen; see ``KVSource``."""
        try:
            family = socket.AF_INET6 if ":" in self._listen.host else socket.AF_INET
            server = socket.create_server(self._listen, family=family, backlog=128)
        except OSError as error:
            raise ConfigError(f"KV cannot be served on {self._listen}: {error}; choose port 0") from error
        serve = _Server(memory, self._offers, self._patience_s, self.refused).serve
        own = self._credentials
        context = None if own is None else lambda: own.server
        address = HostPort(self._advertise, server.getsockname()[1])
        self._listener = Listener(server, serve, "kv-tcp", context, self._patience_s)
        return Endpoint(self.capabilities.name, str(address), host_id())

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

    def __init__(self, memory: SourceMemory, offers: OfferBook, patience_s: float, refused: Tally) -> None:
        self._refused = refused
        self._memory = memory
        self._offers = offers
        self._patience_s = patience_s
        self._complain = SparseLog(logger.warning)
        self._mention = SparseLog(logger.info)

    def serve(self, connection: socket.socket, settle: Settle) -> None:
        """Answer until the sink leaves or breaks the protocol."""
        peer = "a peer"
        try:
            peer = str(connection.getpeername())
            prepare(connection)
            if introduce(connection, self._patience_s):
                settle()
            wire.send_greeting(connection, wire.Greeting(self._memory.block_bytes, self._memory.num_blocks))
            while (request := wire.receive_request(connection, _IDLE_S, _STALL_S)) is not None:
                self._answer(connection, request, settle)
        except wire.WireError as error:
            if isinstance(error, wire.StrangerError):
                self._refused.count(error.reason)
            self._complain("closed the KV connection of %s: %s", peer, error)
        except OSError as error:
            self._mention("the KV connection of %s ended: %s", peer, error)

    def _answer(self, connection: socket.socket, request: wire.Request, settle: Settle) -> None:
        reason = self._offers.refusal(request.handoff, request.blocks)
        if reason is not None:
            connection.sendall(wire.refusal(reason))
            return
        settle()
        size = self._memory.block_bytes
        views = [memoryview(wire.accept_header(len(request.blocks) * size))]
        views += flow.runs(self._memory.view, request.blocks, size)
        first = 0
        while first < len(views):
            if not self._offers.is_open(request.handoff):
                raise wire.WireError(f"the offer {request.handoff} was released while it was read")
            first = flow.advance(views, first, flow.send_some(connection, views, first))
