"""HTTP/1.1 as a load generator needs it: httptools on bare asyncio transports, and the moment at which bytes came.

httpx costs several times as much CPU for a streamed event (``python -m bench.load_client`` measures both),
which at hundreds of requests a second is the difference between measuring the server and measuring the client.
"""

import asyncio
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol
from urllib.parse import urlsplit

import httptools

from twinfer.core.clock import Clock
from twinfer.core.errors import ConfigError

MAX_IDLE_S = 2.0
"""A connection that was idle for longer is not used again: the server may be about to close it."""


class BadReplyError(Exception):
    """What came is no HTTP."""


class Sink(Protocol):
    """Who listens to an answer."""

    def head(self, status: int, headers: Mapping[str, str]) -> None:
        """Status and headers, names in lower case."""
        ...

    def body(self, data: bytes, at_s: float) -> None:
        """All that one read of the socket brought, and when."""
        ...


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a URL leads.

    Attributes:
        path: what stands before every path of the API, without `/v1`; "" or begins with a slash.
    """

    scheme: str
    host: str
    port: int
    path: str

    @property
    def authority(self) -> str:
        """As the Host header says it."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == {"http": 80, "https": 443}[self.scheme] else f"{host}:{self.port}"


def read_origin(url: str) -> Origin:
    """The parts of a URL.

    Raises:
        ConfigError: it is none that can be measured.
    """
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise ConfigError(f"{url!r} is no URL: {error}") from error
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.username:
        raise ConfigError(f"{url!r} is no endpoint: write it like http://127.0.0.1:8000")
    return Origin(
        parts.scheme,
        parts.hostname,
        port or (443 if parts.scheme == "https" else 80),
        parts.path.rstrip("/").removesuffix("/v1"),
    )


class StaleConnectionError(ConnectionResetError):
    """The server left a connection that had been used before, without a word on the new request."""


class Connection(asyncio.Protocol):
    """One connection, one exchange at a time."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._sink: Sink | None = None
        self._done: asyncio.Future[None] | None = None
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._headers: dict[str, str] = {}
        self._parts: list[bytes] = []
        self._complete = self._begun = self._heard = False
        self._exchanges = 0
        self.usable = True
        self.idle_since_s = 0.0

    async def exchange(self, request: bytes, sink: Sink) -> None:
        """Send a request and hear the answer to its end.

        Raises:
            StaleConnectionError: it was used before, and broke off before anything came.
            ConnectionError: the connection broke off.
            BadReplyError: no HTTP came.
        """
        assert self._transport is not None
        self._sink, self._complete, self._begun, self._heard = sink, False, False, False
        self._exchanges += 1
        self._done = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        try:
            await self._done
        except BaseException:
            self.close()
            raise
        finally:
            self._done = self._sink = None

    def close(self) -> None:
        """Leave."""
        self.usable = False
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Connected."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Bytes came: the moment is now, whatever is made of them later."""
        at_s = self._clock.now()
        if self._done is None or self._done.done():
            self.close()
            return
        self._heard = True
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._end(BadReplyError(str(error) or "no HTTP"))
            return
        if self._parts and self._sink is not None:
            self._sink.body(b"".join(self._parts), at_s)
            self._parts.clear()
        if self._complete:
            self.idle_since_s = at_s
            self._end(None)

    def connection_lost(self, exc: Exception | None) -> None:
        """The server left; a body without a length ends like this."""
        self.usable = False
        if self._exchanges > 1 and not self._heard:
            self._end(StaleConnectionError("closed"))
            return
        framed = "content-length" in self._headers or "chunked" in self._headers.get("transfer-encoding", "")
        self._end(None if self._begun and not framed and exc is None else ConnectionResetError(str(exc or "closed")))

    def on_header(self, name: bytes, value: bytes) -> None:
        """For the parser."""
        self._headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_message_begin(self) -> None:
        """For the parser."""
        self._headers = {}

    def on_headers_complete(self) -> None:
        """For the parser."""
        if self._parser.get_status_code() >= 200 and self._sink is not None:
            self._begun = True
            self._sink.head(self._parser.get_status_code(), self._headers)

    def on_body(self, data: bytes) -> None:
        """For the parser."""
        self._parts.append(data)

    def on_message_complete(self) -> None:
        """For the parser."""
        if self._begun:
            self._complete = True
            self.usable = self.usable and self._parser.should_keep_alive()

    def _end(self, error: Exception | None) -> None:
        if self._done is None or self._done.done():
            return
        if error is None:
            self._done.set_result(None)
        else:
            self._done.set_exception(error)


class Pool:
    """Connections to one origin, as many as are needed at a time; the one used last is used first."""

    def __init__(self, origin: Origin, clock: Clock) -> None:
        self.origin = origin
        self._clock = clock
        self._idle: list[Connection] = []
        self._context = ssl.create_default_context() if origin.scheme == "https" else None

    async def take(self) -> tuple[Connection, float]:
        """An open connection, and the seconds that opening took.

        Raises:
            OSError: there is no connecting.
        """
        before_s = self._clock.now()
        while self._idle:
            connection = self._idle.pop()
            if connection.usable and before_s - connection.idle_since_s < MAX_IDLE_S:
                return connection, 0.0
            connection.close()
        _, connection = await asyncio.get_running_loop().create_connection(
            lambda: Connection(self._clock), self.origin.host, self.origin.port, ssl=self._context
        )
        return connection, self._clock.now() - before_s

    async def exchange(self, connection: Connection, request: bytes, sink: Sink) -> None:
        """Exchange on this connection and put it back; on others if the server had left it while it lay idle.

        Raises:
            ConnectionError, BadReplyError: as ``Connection.exchange``, but for connections that were left.
        """
        while True:
            try:
                await connection.exchange(request, sink)
            except StaleConnectionError:
                connection, _ = await self.take()
                continue
            self.give(connection)
            return

    def give(self, connection: Connection) -> None:
        """It may be used again, if it can be."""
        if connection.usable:
            self._idle.append(connection)
        else:
            connection.close()

    def close(self) -> None:
        """Close what is idle."""
        for connection in self._idle:
            connection.close()
        self._idle.clear()


def render(origin: Origin, method: str, path: str, headers: Mapping[str, str], body: bytes) -> bytes:
    """A request as it goes over the wire."""
    lines = [f"{method} {path} HTTP/1.1", f"host: {origin.authority}", f"content-length: {len(body)}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body
