"""What a process shows its peers and asks of them: TLS 1.3, both sides with a certificate of the cluster's authority.

A server's certificate must name the host that was dialled and be fit for servers, which a gateway's is not. A client's
must carry a role that may do what it asks for.
"""

import ssl
from collections.abc import Callable, Collection
from pathlib import Path
from typing import NamedTuple

from twinfer.core.config import TlsConfig
from twinfer.core.errors import ConfigError
from twinfer.tls.pem import load_authority, load_chain, settled
from twinfer.tls.roles import PeerRole, name_refusal, role_refusal

_HANDSHAKE_FLIGHTS = 4


class Pem(NamedTuple):
    """Files as they were read, all at one time."""

    authority: bytes
    certificate: bytes
    key: bytes


class Shown(NamedTuple):
    """What connections are made with: for gRPC, and for sockets that accept and that dial."""

    pem: Pem
    server: ssl.SSLContext
    client: ssl.SSLContext


class Credentials:
    """One process's certificate, key and authority as they are now; to be asked for each new connection.

    Args:
        read: the files.
    """

    def __init__(self, read: Callable[[], Shown]) -> None:
        self._read = read
        self._shown = read()

    @property
    def pem(self) -> Pem:
        """For gRPC; the same object as long as nothing was renewed."""
        return self._shown.pem

    @property
    def server(self) -> ssl.SSLContext:
        """For sockets that accept."""
        return self._shown.server

    @property
    def client(self) -> ssl.SSLContext:
        """For sockets that dial."""
        return self._shown.client

    def renew(self) -> bool:
        """Read the files again, for connections to come; from any thread. Whether they had changed.

        Raises:
            ConfigError: peers would not accept what is in them; then all stays as it was.
        """
        shown = self._read()
        if shown.pem == self._shown.pem:
            return False
        self._shown = shown
        return True


def load_credentials(config: TlsConfig, role: PeerRole, worker: str = "") -> Credentials | None:
    """Read the files of ``[tls]`` and see that peers will accept them; ``None`` where none are configured.

    Args:
        config: names the files.
        role: of this process.
        worker: its name, where it is one.

    Raises:
        ConfigError: a file cannot be read, the certificate does not fit the key, the authority or the role, or is
            not valid now, or it is for other workers.
    """
    return Credentials(lambda: _read(config, role, worker)) if config.enabled else None


def _read(config: TlsConfig, role: PeerRole, worker: str) -> Shown:
    try:
        shown = settled(lambda: _read_once(config))
        names = _seen_by_peers(shown)
    except ssl.SSLError as error:
        raise ConfigError(
            f"the certificate {config.cert} cannot be used with {config.key} and {config.ca}: {tls_reason(error)}; "
            f"make new ones with: twinfer certs"
        ) from error
    except OSError as error:
        raise ConfigError(f"cannot read {error.filename}, which [tls] names: {error.strerror}") from error
    refusal = role_refusal(names, [role])
    if refusal is not None:
        raise ConfigError(f"{config.cert} is not for a {role}: {refusal}")
    refusal = name_refusal(names, worker) if worker else None
    if refusal is not None:
        raise ConfigError(f"{config.cert} is not for {worker}: {refusal}")
    return shown


def _read_once(config: TlsConfig) -> Shown:
    pem = Pem(*(Path(path).read_bytes() for path in config.files))
    return Shown(pem, _context(ssl.PROTOCOL_TLS_SERVER, pem), _context(ssl.PROTOCOL_TLS_CLIENT, pem))


def peer_refusal(connection: ssl.SSLSocket, allowed: Collection[PeerRole]) -> str | None:
    """Why the peer of a finished handshake is not one of these; ``None`` when it is."""
    return role_refusal(_names(connection), allowed)


def tls_reason(error: ssl.SSLError) -> str:
    """What went wrong, without OpenSSL's line numbers."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return str(error.verify_message)
    return (error.reason or str(error)).replace("_", " ").lower()


def _context(protocol: int, pem: Pem) -> ssl.SSLContext:
    context = ssl.SSLContext(protocol)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.verify_mode = ssl.CERT_REQUIRED
    load_authority(context, pem.authority)
    load_chain(context, pem.certificate, pem.key)
    if protocol == ssl.PROTOCOL_TLS_SERVER:
        context.num_tickets = 0  # connections are kept instead of resumed
    return context


def _seen_by_peers(shown: Shown) -> list[str]:
    """The names on our certificate after a handshake with ourselves, in memory."""
    context = _context(ssl.PROTOCOL_TLS_CLIENT, shown.pem)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = context.wrap_bio(to_client, to_server)
    verifier = shown.server.wrap_bio(to_server, to_client, server_side=True)
    for end in (client, verifier) * _HANDSHAKE_FLIGHTS:
        try:
            end.do_handshake()
        except ssl.SSLWantReadError:
            continue
    return _names(verifier)


def _names(end: ssl.SSLSocket | ssl.SSLObject) -> list[str]:
    certificate = end.getpeercert() or {}
    alternatives = certificate.get("subjectAltName", ())
    return [str(entry[1]) for entry in alternatives]
