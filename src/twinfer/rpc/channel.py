"""Where the control plane listens, and how its connections behave."""

import ipaddress
from typing import TypeAlias

from twinfer.core.errors import ConfigError
from twinfer.rpc.codec import MAX_MESSAGE_BYTES

Options: TypeAlias = tuple[tuple[str, int], ...]

KEEPALIVE_S = 2.0
"""A peer that answers no ping for that long, after as long a silence, is lost: noticed within twice this time."""


def check_local(address: str) -> None:
    """See that only this machine's processes can read along.

    Raises:
        ConfigError: the address is neither a Unix socket nor loopback, or is none at all.
    """
    if address.startswith("unix:"):
        return
    host, colon, port = address.rpartition(":")
    if not colon or not port.isdecimal():
        raise ConfigError(f"{address!r} is no address: write host:port or unix:/path")
    try:
        local = ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        local = host == "localhost"
    if not local:
        raise ConfigError(f"the control plane has no TLS yet and cannot use {address}: use 127.0.0.1 or unix:/path")


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


def server_options(keepalive_s: float) -> Options:
    """A port in use is an error, and pings are welcome."""
    return (
        *_both_sides(keepalive_s),
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
