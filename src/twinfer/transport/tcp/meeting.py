"""The first moments of a connection: options, TLS, and whether the other end is a worker of this cluster."""

import select
import socket
import ssl
import time
from collections.abc import Callable

from twinfer.core.address import HostPort, is_loopback
from twinfer.tls.credentials import Credentials, peer_refusal, tls_reason
from twinfer.tls.roles import PeerRole
from twinfer.transport.tcp.wire import StrangerError, WireError

_KEEPALIVE_IDLE_S = 10
_KEEPALIVE_PROBES = 3


def dial(
    address: HostPort, credentials: Credentials | None, deadline: float, own: Callable[[socket.socket], object]
) -> socket.socket:
    """A connection to a source, over TLS where there are credentials.

    ``own`` takes it over before it is even connected, so that it can be cut at any time. The deadline is in monotonic
    seconds.

    Raises:
        WireError: the way there would be unencrypted, or the source is no worker of this cluster.
        OSError: nothing listens there, or not in time.
    """
    if credentials is None and not is_loopback(address.host):
        raise WireError("only loopback addresses can be pulled from without TLS")
    family, kind, protocol, _, place = socket.getaddrinfo(*address, type=socket.SOCK_STREAM)[0]
    connection = socket.socket(family, kind, protocol)
    if credentials is not None:
        connection = credentials.client.wrap_socket(
            connection, server_hostname=address.host, do_handshake_on_connect=False
        )
    own(connection)
    connection.settimeout(_seconds_until(deadline))
    connection.connect(place)
    prepare(connection)
    introduce(connection, _seconds_until(deadline))
    return connection


def prepare(connection: socket.socket) -> None:
    """Small messages leave at once; a host that vanished is noticed within half a minute, also while nothing flows."""
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, _KEEPALIVE_IDLE_S)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, _KEEPALIVE_IDLE_S // 2)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, _KEEPALIVE_PROBES)


def introduce(connection: socket.socket, timeout_s: float) -> bool:
    """On a TLS connection, shake hands and see that the peer is a worker; on a plain one nothing can be seen.

    Raises:
        StrangerError: it speaks no TLS 1.3, is of another cluster, of another host than was dialled, or no worker.
        WireError: it said too little in that time.
        OSError: it left.
    """
    if not isinstance(connection, ssl.SSLSocket):
        return False
    connection.settimeout(timeout_s)
    try:
        connection.do_handshake()
    except (ssl.SSLEOFError, ssl.SSLZeroReturnError) as error:
        raise StrangerError("certificate", "it left in the middle of the TLS handshake") from error
    except ssl.SSLError as error:
        raise StrangerError("certificate", f"the TLS handshake failed: {tls_reason(error)}") from error
    except TimeoutError as error:
        raise WireError(f"it did not finish the TLS handshake within {timeout_s:.1f} s") from error
    refusal = peer_refusal(connection, [PeerRole.WORKER])
    if refusal is not None:
        raise StrangerError("role", refusal)
    return True


def is_fresh(connection: socket.socket) -> bool:
    """Whether an idle connection can be used: a source says nothing unasked, so anything to read means its end."""
    poll = select.poll()
    poll.register(connection, select.POLLIN)
    return not poll.poll(0)


def _seconds_until(deadline: float) -> float:
    return max(deadline - time.monotonic(), 1e-3)
