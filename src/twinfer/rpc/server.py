"""The worker's side of the control plane.

1. A caller that does not prove to hold the cluster key, or whose certificate has not the role for the call, is turned
   away before anything is read.
2. Each stream call runs the handler; the call ends when the handler returns, after what it sent is written.
3. A caller that is gone breaks the stream: the handler sees ``WorkerLost`` when it iterates, and should return.
"""

import asyncio
import contextlib
import hmac
import logging
import socket
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

import grpc
import grpc.aio

from twinfer.core.errors import ConfigError, ProtocolError, TwinferError, WorkerLost
from twinfer.core.load import LoadReport
from twinfer.core.messages import ToGateway, ToSink, ToSource, ToWorker
from twinfer.core.sparse_log import SparseLog
from twinfer.core.tally import Tally
from twinfer.rpc import codec
from twinfer.rpc.channel import DEFAULT_LIMITS, KEEPALIVE_S, PortLimits, server_options, server_security
from twinfer.rpc.codec import Decoder
from twinfer.rpc.stream import MessageStream
from twinfer.tls.credentials import Credentials
from twinfer.tls.roles import PeerRole, role_refusal

_LEAVE_S = 2.0
"""A handler that goes on for so long after its caller is gone is cancelled."""

logger = logging.getLogger(__name__)


class WorkerHandler(Protocol):
    """What a worker does with its callers."""

    async def on_gateway(self, stream: MessageStream[ToWorker, ToGateway]) -> None:
        """Serve one gateway until it leaves."""
        ...

    async def on_handoff(self, stream: MessageStream[ToSink, ToSource]) -> None:
        """Serve one source worker until it leaves."""
        ...

    async def report(self) -> LoadReport:
        """The state of now."""
        ...


class ControlServer:
    """Listens for gateways and workers. Belongs to one event loop.

    Args:
        handler: serves them.
        key: the cluster key.
        address: ``unix:/path``, or ``host:port``, on loopback where there are no credentials; port 0 takes a free one.
        keepalive_s: silence after which a peer is asked for a sign of life, and the time it has for it.
        credentials: for TLS on ``host:port``, with a certificate asked of every caller.
        limits: for strangers.

    Attributes:
        refused: callers turned away, by ``role`` or ``key``; handshakes that fail are gRPC's, and in its log alone.
    """

    def __init__(
        self,
        handler: WorkerHandler,
        key: bytes,
        address: str,
        keepalive_s: float = KEEPALIVE_S,
        credentials: Credentials | None = None,
        limits: PortLimits = DEFAULT_LIMITS,
    ) -> None:
        self._limits = limits
        self._security = server_security(address, credentials)
        self._handler = handler
        self._proof = codec.proof(key)
        self.address = address
        self._keepalive_s = keepalive_s
        self._server: Any = None
        self._complain = SparseLog(logger.warning)
        self.refused = Tally()

    async def start(self) -> str:
        """Listen; returns the address to connect to.

        Raises:
            ConfigError: the port or path is in use, or cannot be bound.
        """
        if self.address.startswith("unix:"):
            _check_free(self.address)
        self._server = grpc.aio.server(options=server_options(self._keepalive_s, self._limits))
        self._server.add_generic_rpc_handlers((self._methods(),))
        try:
            if self._security is None:
                port = self._server.add_insecure_port(self.address)
            else:
                port = self._server.add_secure_port(self.address, self._security)
        except RuntimeError as error:
            raise _unusable(self.address) from error
        if self.address.startswith("unix:"):
            Path(self.address.removeprefix("unix:")).chmod(0o600)
        await self._server.start()
        if not self.address.startswith("unix:"):
            self.address = f"{self.address.rpartition(':')[0]}:{port}"
        return self.address

    async def stop(self, grace_s: float = 1.0) -> None:
        """Take no new calls, wait so long for those under way, then cut them. Safe to repeat."""
        if self._server is not None:
            await self._server.stop(grace_s)

    def _methods(self) -> grpc.GenericRpcHandler:
        async def gateway(_: object, context: Any) -> None:
            await self._authenticate(context, PeerRole.GATEWAY)
            await self._serve(context, codec.to_worker, self._handler.on_gateway)

        async def handoff(_: object, context: Any) -> None:
            await self._authenticate(context, PeerRole.WORKER)
            await self._serve(context, codec.to_sink, self._handler.on_handoff)

        async def report(_: bytes, context: Any) -> bytes:
            await self._authenticate(context, *PeerRole)
            return codec.encode(await self._handler.report())

        return grpc.method_handlers_generic_handler(
            codec.SERVICE,
            {
                codec.GATEWAY: grpc.stream_stream_rpc_method_handler(gateway),
                codec.HANDOFF: grpc.stream_stream_rpc_method_handler(handoff),
                codec.REPORT: grpc.unary_unary_rpc_method_handler(report),
            },
        )

    async def _authenticate(self, context: Any, *roles: PeerRole) -> None:
        if self._security is not None:
            refusal = role_refusal(_names(context), roles)
            if refusal is not None:
                self.refused.count("role")
                self._complain("%s was turned away: %s", context.peer(), refusal)
                await context.abort(grpc.StatusCode.PERMISSION_DENIED, refusal)
        given = dict(context.invocation_metadata() or ()).get(codec.PROOF_HEADER, "")
        if not hmac.compare_digest(str(given).encode(), self._proof.encode()):
            self.refused.count("key")
            self._complain("%s called without the cluster key and was turned away", context.peer())
            await context.abort(grpc.StatusCode.UNAUTHENTICATED, "the call does not prove the cluster key")

    async def _serve(
        self, context: Any, decoder: Decoder[Any], handle: Callable[[MessageStream[Any, Any]], Awaitable[None]]
    ) -> None:
        stream: MessageStream[Any, Any] = MessageStream(_ServerWire(context), decoder, names=_names(context))
        handler = asyncio.ensure_future(handle(stream))
        handler.add_done_callback(_seen)
        broken = asyncio.ensure_future(stream.wait_broken())
        try:
            await asyncio.wait({handler, broken}, return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            stream.break_off(WorkerLost(f"{stream.peer} is gone"))
            raise
        finally:
            broken.cancel()
            await asyncio.wait({handler}, timeout=_LEAVE_S)
            handler.cancel()
            await asyncio.wait({handler})
            await stream.close()
            failure = self._failure(handler, stream)
        if isinstance(stream.error, ProtocolError):
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(stream.error))
        if failure is not None:
            await context.abort(grpc.StatusCode.ABORTED, failure)

    def _failure(self, handler: "asyncio.Future[None]", stream: MessageStream[Any, Any]) -> str | None:
        """Why the handler itself failed, logged, in words for the caller; ``None`` when it or its stream ended well."""
        error = None if handler.cancelled() else handler.exception()
        if error is None or error is stream.error:
            return None
        if isinstance(error, TwinferError):
            self._complain("serving %s failed: %s", stream.peer, error)
            return str(error)
        logger.error("serving %s failed", stream.peer, exc_info=error)
        return "an internal error; the worker's log has it"


class _ServerWire:
    """A call under way, as a stream sees it."""

    def __init__(self, context: Any) -> None:
        self._context = context
        self.peer: str = context.peer()

    async def read(self) -> bytes | None:
        with _translated(self.peer):
            data = await self._context.read()
        if data is grpc.aio.EOF:
            raise WorkerLost(f"{self.peer} is gone")
        return None if data == codec.GOODBYE else data

    async def write(self, data: bytes) -> None:
        with _translated(self.peer):
            await self._context.write(data)

    async def finish(self) -> None:
        """Nothing: the call ends with its handler."""

    def cut(self) -> None:
        """Nothing: the call ends with its handler, which sees that the stream is over."""


def _names(context: Any) -> list[str]:
    """On the caller's certificate; none where it needed none."""
    return [name.decode() for name in context.auth_context().get("x509_subject_alternative_name", ())]


@contextlib.contextmanager
def _translated(peer: str) -> Iterator[None]:
    """gRPC's errors in our words."""
    try:
        yield
    except grpc.aio.BaseError as error:
        raise WorkerLost(f"{peer} is gone") from error


def _seen(handler: "asyncio.Future[None]") -> None:
    """Look at how it ended, in case the call is cancelled once more before it does: asyncio would complain."""
    if not handler.cancelled():
        handler.exception()


def _check_free(address: str) -> None:
    """gRPC would take over a socket file that another process still listens on."""
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(address.removeprefix("unix:"))
        except (FileNotFoundError, ConnectionRefusedError):
            return
        except OSError as error:
            raise _unusable(address) from error
    raise _unusable(address)


def _unusable(address: str) -> ConfigError:
    return ConfigError(f"{address} cannot be listened on, most likely since it is in use: choose another with --listen")
