"""The calling side of the control plane: a gateway towards a worker, or a handoff's source towards its sink."""

import asyncio
import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, TypeVar

import grpc
import grpc.aio

from twinfer.core.errors import ProtocolError, TwinferError, WorkerLost
from twinfer.core.load import LoadReport
from twinfer.core.messages import ToGateway, ToSink, ToSource, ToWorker
from twinfer.rpc import codec
from twinfer.rpc.channel import KEEPALIVE_S, client_options, client_security
from twinfer.rpc.codec import Decoder
from twinfer.rpc.outbox import Outbox
from twinfer.rpc.stream import MessageStream
from twinfer.tls.credentials import Credentials

_PROTOCOL_CODES = (
    grpc.StatusCode.UNAUTHENTICATED,
    grpc.StatusCode.PERMISSION_DENIED,
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.UNIMPLEMENTED,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
)

In = TypeVar("In")


class WorkerClient:
    """A connection to one worker, opened at the first call and again after it broke. Belongs to one event loop."""

    def __init__(
        self, address: str, key: bytes, keepalive_s: float = KEEPALIVE_S, credentials: Credentials | None = None
    ) -> None:
        self.address = address
        self._metadata = ((codec.PROOF_HEADER, codec.proof(key)),)
        self._options = client_options(keepalive_s)
        self._credentials = credentials
        self._channel = self._open()
        self._former: list[_Channel] = []
        """Of certificates that were renewed since, with calls that are still on them."""
        self._closing: set[asyncio.Task[None]] = set()

    def gateway_stream(self, outbox: Outbox | None = None) -> MessageStream[ToGateway, ToWorker]:
        """Requests go, tokens come. A worker that cannot be reached shows when iterating."""
        return self._stream(codec.GATEWAY, codec.to_gateway, outbox)

    def handoff_stream(self, outbox: Outbox | None = None) -> MessageStream[ToSource, ToSink]:
        """Offers go to the sink, acknowledgements come. A sink that cannot be reached shows when iterating."""
        return self._stream(codec.HANDOFF, codec.to_source, outbox)

    async def report(self, timeout_s: float) -> LoadReport:
        """Ask for the worker's state.

        Raises:
            WorkerLost: it cannot be reached, or does not answer in time.
            ProtocolError: it does not take our key, or speaks another version.
        """
        channel = self._current()
        call = channel.grpc.unary_unary(f"/{codec.SERVICE}/{codec.REPORT}")
        with channel.reporting(), _translated(self.address):
            answer = await call(b"", timeout=timeout_s, metadata=self._metadata)
        return codec.load_report.decode(answer)

    async def close(self) -> None:
        """Close all streams and the connection. Safe to repeat."""
        channels = [*self._former, self._channel]
        await asyncio.gather(*(stream.close() for channel in channels for stream in channel.streams))
        await asyncio.gather(*(channel.grpc.close() for channel in channels), *self._closing)

    def _stream(self, method: str, decoder: Decoder[In], outbox: Outbox | None) -> MessageStream[In, Any]:
        channel = self._current()
        with _translated(self.address):
            call = channel.grpc.stream_stream(f"/{codec.SERVICE}/{method}")(metadata=self._metadata)
        stream = MessageStream[In, Any](_ClientWire(call, self.address), decoder, outbox)
        channel.streams = [other for other in channel.streams if not other.is_through] + [stream]
        return stream

    def _open(self) -> "_Channel":
        self._pem = None if self._credentials is None else self._credentials.pem
        security = client_security(self.address, self._credentials)
        if security is None:
            return _Channel(grpc.aio.insecure_channel(self.address, options=self._options))
        return _Channel(grpc.aio.secure_channel(self.address, security, options=self._options))

    def _current(self) -> "_Channel":
        """For a new call; another one once the certificate was renewed, beside those that calls may still be on."""
        if self._credentials is not None and self._pem is not self._credentials.pem:
            former, self._channel = self._channel, self._open()
            self._former.append(former)
        for channel in [channel for channel in self._former if channel.is_idle]:
            self._former.remove(channel)
            closing = asyncio.create_task(channel.grpc.close())
            self._closing.add(closing)
            closing.add_done_callback(self._closing.discard)
        return self._channel


@dataclass(slots=True)
class _Channel:
    """A gRPC channel, and the calls that are on it."""

    grpc: Any
    streams: list[MessageStream[Any, Any]] = field(default_factory=list)
    num_reports: int = 0

    @contextlib.contextmanager
    def reporting(self) -> Iterator[None]:
        """A report is asked for."""
        self.num_reports += 1
        try:
            yield
        finally:
            self.num_reports -= 1

    @property
    def is_idle(self) -> bool:
        """Whether no call is on it."""
        return not self.num_reports and all(stream.is_through for stream in self.streams)


def connect(
    address: str, key: bytes, keepalive_s: float = KEEPALIVE_S, credentials: Credentials | None = None
) -> WorkerClient:
    """A client of the worker at ``host:port`` or ``unix:/path``. Returns at once; calls say whether it is there.

    Raises:
        ConfigError: the address is elsewhere and there are no credentials, or the key is empty.
    """
    return WorkerClient(address, key, keepalive_s, credentials)


class _ClientWire:
    """A call, as a stream sees it."""

    def __init__(self, call: Any, peer: str) -> None:
        self._call = call
        self.peer = peer

    async def read(self) -> bytes | None:
        with _translated(self.peer):
            data = await self._call.read()
        return None if data is grpc.aio.EOF else data

    async def write(self, data: bytes) -> None:
        try:
            with _translated(self.peer):
                await self._call.write(data)
        except asyncio.InvalidStateError as error:
            raise _error(await self._call.code(), await self._call.details(), self.peer) from error

    async def finish(self) -> None:
        """End our side, and wait for the worker to end the call; the stream reads on meanwhile."""
        await self.write(codec.GOODBYE)
        with _translated(self.peer):
            await self._call.done_writing()
            await self._call.code()

    def cut(self) -> None:
        self._call.cancel()


@contextlib.contextmanager
def _translated(peer: str) -> Iterator[None]:
    """gRPC's errors in our words."""
    try:
        yield
    except grpc.aio.AioRpcError as error:
        raise _error(error.code(), error.details(), peer) from error
    except grpc.aio.BaseError as error:
        raise WorkerLost(f"the call to the worker at {peer} broke: {error}") from error


def _error(code: grpc.StatusCode, details: str | None, peer: str) -> TwinferError:
    if code == grpc.StatusCode.UNAUTHENTICATED:
        return ProtocolError(f"the worker at {peer} does not take our cluster key: give both the same secret")
    if code in _PROTOCOL_CODES:
        return ProtocolError(f"the worker at {peer} refuses: {details}")
    if code == grpc.StatusCode.DEADLINE_EXCEEDED:
        return WorkerLost(f"the worker at {peer} did not answer in time")
    if code == grpc.StatusCode.OK:
        return WorkerLost(f"the worker at {peer} ended the call while messages were on their way")
    return WorkerLost(f"the worker at {peer} is lost or cannot be reached: {details}")
