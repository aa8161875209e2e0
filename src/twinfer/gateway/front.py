"""What stands between a socket and the application: TLS, and which HTTP a client speaks.

HTTP/1.1 goes to ``httptools`` whatever else is there, because it costs least per streamed chunk. A connection that
speaks HTTP/2, by ALPN or by its first bytes, goes to ``zttp``, where that is installed.
"""

import asyncio
import importlib.util
from dataclasses import dataclass
from typing import Any, ClassVar

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from twinfer.core.config import GatewayConfig
from twinfer.gateway.endpoint import Endpoint

H2, HTTP1 = "h2", "http/1.1"
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


@dataclass(frozen=True, slots=True)
class Front:
    """How a gateway is spoken to.

    Attributes:
        endpoint: ``None`` for plain HTTP.
        http2: whether HTTP/2 is spoken besides HTTP/1.1.
    """

    endpoint: Endpoint | None = None
    http2: bool = False


def front_of(config: GatewayConfig) -> Front:
    """What the configuration asks for, and this installation can.

    Raises:
        ConfigError: the certificate cannot be used.
    """
    http2 = config.http2 and importlib.util.find_spec("zttp") is not None
    if not config.tls_cert:
        return Front(http2=http2)
    return Front(Endpoint(config, [H2, HTTP1] if http2 else [HTTP1]), http2)


class EitherHttp(asyncio.Protocol):
    """A new connection, until it is clear which HTTP it speaks; then that protocol has it.

    Arguments are uvicorn's.
    """

    alpn_protocols: ClassVar[list[str]] = [H2, HTTP1]

    def __init__(
        self, config: Any, server_state: Any, app_state: dict[str, Any], _loop: asyncio.AbstractEventLoop | None = None
    ) -> None:
        self._arguments = {"config": config, "server_state": server_state, "app_state": app_state, "_loop": _loop}
        self._connections = server_state.connections
        self._patience_s: float = config.timeout_keep_alive
        self._begun = b""
        self._giving_up: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Over TLS it is clear at once."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        session = transport.get_extra_info("ssl_object")
        if session is not None:
            self._become(session.selected_alpn_protocol() == H2)
            return
        self._connections.add(self)
        self._giving_up = asyncio.get_running_loop().call_later(self._patience_s, transport.close)

    def data_received(self, data: bytes) -> None:
        """Else by the first bytes."""
        self._begun += data
        if len(self._begun) >= len(PREFACE) or not PREFACE.startswith(self._begun):
            self._leave()
            self._become(self._begun.startswith(PREFACE))

    def connection_lost(self, exc: Exception | None) -> None:
        """It never said anything."""
        self._leave()

    def shutdown(self) -> None:
        """The server stops; uvicorn calls this."""
        self._transport.close()

    def _leave(self) -> None:
        self._connections.discard(self)
        if self._giving_up is not None:
            self._giving_up.cancel()

    def _become(self, http2: bool) -> None:
        protocol: asyncio.Protocol
        if http2:
            from uvicorn.protocols.http.zttp_h2_impl import ZttpH2Protocol

            protocol = ZttpH2Protocol(**self._arguments)
        else:
            protocol = HttpToolsProtocol(**self._arguments)
        self._transport.set_protocol(protocol)
        protocol.connection_made(self._transport)
        if self._begun:
            protocol.data_received(self._begun)
