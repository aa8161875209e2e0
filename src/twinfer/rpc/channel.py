"""Where the control plane listens, and how its connections behave."""

from dataclasses import dataclass
from typing import Any, TypeAlias

import grpc

from twinfer.core.address import check_address, is_unix
from twinfer.rpc.codec import MAX_MESSAGE_BYTES
from twinfer.tls.credentials import Credentials, Pem

Options: TypeAlias = tuple[tuple[str, int], ...]

KEEPALIVE_S = 2.0
"""A peer that answers no ping for that long, after as long a silence, is lost: noticed within twice this time."""


@dataclass(frozen=True, slots=True)
class PortLimits:
    """What strangers may take of a server.

    Attributes:
        handshake_s: a connection that has not introduced itself by then, in TLS and in HTTP/2, is closed.
        connections: at once; others are turned away.
        calls: at once, on one connection.
        idle_s: a connection without a call is closed after that time; its caller opens another.
    """

    handshake_s: float = 5.0
    connections: int = 256
    calls: int = 64
    idle_s: float = 300.0


DEFAULT_LIMITS = PortLimits()


def client_security(address: str, credentials: Credentials | None) -> Any:
    """What a channel to this address is opened with; ``None`` for plain, within this machine.

    Raises:
        ConfigError: the way there would be unencrypted.
    """
    check_address(address, encrypted=credentials is not None)
    if credentials is None or is_unix(address):
        return None
    authority, certificate, key = credentials.pem
    return grpc.ssl_channel_credentials(authority, key, certificate)


def server_security(address: str, credentials: Credentials | None) -> Any:
    """What this address is served with; ``None`` for plain, within this machine. Callers must show a certificate.

    Raises:
        ConfigError: callers would come in unencrypted.
    """
    check_address(address, encrypted=credentials is not None)
    if credentials is None or is_unix(address):
        return None
    current = _Current(credentials)
    return grpc.dynamic_ssl_server_credentials(current.first, current, require_client_authentication=True)


class _Current:
    """What a server shows; gRPC asks for it at each connection, from threads of its own."""

    def __init__(self, credentials: Credentials) -> None:
        self._credentials = credentials
        self._told = credentials.pem
        self.first = _configuration(self._told)

    def __call__(self) -> Any:
        """What to show from now on; ``None`` for what was told last."""
        pem = self._credentials.pem
        if pem is self._told:
            return None
        self._told = pem
        return _configuration(pem)


def _configuration(pem: Pem) -> Any:
    return grpc.ssl_server_certificate_configuration(((pem.key, pem.certificate),), pem.authority)


def _both_sides(keepalive_s: float) -> Options:
    milliseconds = int(keepalive_s * 1000)
    return (
        ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
        ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
        ("grpc.keepalive_time_ms", milliseconds),
        ("grpc.keepalive_timeout_ms", milliseconds),
        ("grpc.http2.ping_timeout_ms", milliseconds),  # 60 s by default, and the larger of the two counts
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.max_pings_without_data", 0),
    )


def server_options(keepalive_s: float, limits: PortLimits) -> Options:
    """A port in use is an error, pings are welcome, and strangers hold little for a short time."""
    return (
        *_both_sides(keepalive_s),
        ("grpc.server_handshake_timeout_ms", int(limits.handshake_s * 1000)),
        ("grpc.max_allowed_incoming_connections", limits.connections),
        ("grpc.max_concurrent_streams", limits.calls),
        ("grpc.max_connection_idle_ms", int(limits.idle_s * 1000)),
        ("grpc.so_reuseport", 0),
        ("grpc.http2.min_ping_interval_without_data_ms", 100),
        ("grpc.http2.max_ping_strikes", 0),
    )


def client_options(keepalive_s: float) -> Options:
    """A connection of our own, tried again soon after it failed."""
    return (
        *_both_sides(keepalive_s),
        ("grpc.use_local_subchannel_pool", 1),
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.min_reconnect_backoff_ms", 100),
        ("grpc.max_reconnect_backoff_ms", 2000),
    )
