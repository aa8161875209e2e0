"""Runs the gateway on a socket that was bound before anything else was started."""

import asyncio
import contextlib
import ipaddress
import logging
import math
import socket
from collections.abc import Iterator

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from twinfer.core.clock import MonotonicClock
from twinfer.core.config import Config
from twinfer.core.errors import ConfigError
from twinfer.gateway.app import GatewayApp
from twinfer.gateway.auth import Door
from twinfer.gateway.base import Dispatcher
from twinfer.gateway.exchange import Context
from twinfer.gateway.front import EitherHttp, Front
from twinfer.gateway.models import ModelRegistry
from twinfer.gateway.office import Office

_BACKLOG = 2048
_LAST_WORDS_S = 1.0
"""For calls that were not finished after draining, to say so and to close their generations."""


def build_app(
    config: Config,
    models: ModelRegistry,
    dispatcher: Dispatcher,
    door: Door | None = None,
    office: Office | None = None,
) -> GatewayApp:
    """The whole front door as one ASGI application; open to anybody without a ``door``, and without an ``office`` no
    ledger is kept."""
    office = office or Office.of(config)
    return GatewayApp(Context(config, models, dispatcher, office.meter, MonotonicClock(), office.books), door)


def bind(host: str, port: int, *, guarded: bool = False) -> socket.socket:
    """Listen at the address, so that a busy port shows before models are loaded; port 0 takes a free one.

    Clients that connect early wait until the server runs.

    Args:
        guarded: whether there are keys; without, only this machine may ask.

    Raises:
        ConfigError: the host is open to others, unknown, or the port is taken.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except OSError as error:
        raise ConfigError(f"gateway.host {host!r} is not an address of this machine: {error}") from error
    if not guarded and not ipaddress.ip_address(address[0]).is_loopback:
        raise ConfigError(
            f"gateway.host {host!r} is reachable by others, and authentication is not configured: make a key first "
            "with `twinfer keys create --tenant NAME`, or use 127.0.0.1."
        )
    sock = socket.socket(family, kind, protocol)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind(address)
        sock.listen(_BACKLOG)  # binding alone does not keep others from the port
    except OSError as error:
        sock.close()
        raise ConfigError(f"cannot listen on {host}:{port}: {error.strerror}; set gateway.port.") from error
    return sock


def is_loopback(sock: socket.socket) -> bool:
    """Whether only this machine can reach a listening socket."""
    return ipaddress.ip_address(sock.getsockname()[0]).is_loopback


async def serve(
    app: ASGIApp, sock: socket.socket, stop: asyncio.Event, drain_s: float = 30.0, front: Front | None = None
) -> None:
    """Serve until ``stop`` is set, then let running calls finish for up to ``drain_s`` seconds.

    Signals are left to the caller. The socket is closed at the end.
    """
    front = front or Front()
    endpoint = front.endpoint
    server = _Server(
        uvicorn.Config(
            app,
            http=EitherHttp if front.http2 else HttpToolsProtocol,
            ssl_context_factory=(lambda config, default: endpoint.context) if endpoint else None,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            timeout_graceful_shutdown=math.ceil(drain_s),
        )
    )
    logging.getLogger("uvicorn.error").addFilter(_is_news)

    async def pass_on() -> None:
        await stop.wait()
        server.should_exit = True

    watcher = asyncio.create_task(pass_on())
    try:
        await server.serve(sockets=[sock])
        if broken := server.server_state.tasks:
            await asyncio.wait(broken, timeout=_LAST_WORDS_S)
    finally:
        watcher.cancel()


class _Server(uvicorn.Server):
    """uvicorn without its signal handlers, which would end the process before workers are stopped."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals alone."""
        yield


def _is_news(record: logging.LogRecord) -> bool:
    """Drop uvicorn's remark on a body left unfinished: that is how a broken stream is meant to end, and was logged."""
    return record.msg != "ASGI callable returned without completing response."
