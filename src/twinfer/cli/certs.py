"""``twinfer certs``: certificates with which a cluster's processes trust each other, or clients the endpoint."""

import argparse
import datetime
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from twinfer.core.errors import ConfigError
from twinfer.tls.roles import LOCAL_HOSTS, PeerRole

if TYPE_CHECKING:
    from twinfer.tls.authority import Authority

_WHAT_NEXT = """\
made certificates for {hosts}, valid for {days} days:
  {directory}/worker    copy to every machine that runs workers, for example to /etc/twinfer/tls
  {directory}/gateway   copy to every machine that runs a gateway, to the same place
  {directory}/ca.key    keep it away from all of them: whoever has it can join the cluster

Then the configuration is the same on all machines:

  [tls]
  ca = "/etc/twinfer/tls/ca.pem"
  cert = "/etc/twinfer/tls/cert.pem"
  key = "/etc/twinfer/tls/key.pem"
"""


_ENDPOINT_NEXT = """\
made a certificate for {hosts}, valid for {days} days:
  {directory}/cert.pem, {directory}/key.pem   for the gateway
  {directory}/ca.pem    for clients, which trust nothing else of it: AWS_CA_BUNDLE, NODE_EXTRA_CA_CERTS, SSL_CERT_FILE
  {directory}/ca.key    keep it away from both

Then:

  twinfer serve --set gateway.tls_cert={directory}/cert.pem --set gateway.tls_key={directory}/key.pem
"""


def run(arguments: argparse.Namespace) -> int:
    """Write the files, and say what to do with them."""
    if arguments.days < 1:
        raise ConfigError(f"--days {arguments.days}: a certificate is valid for at least one day")
    directory, now = Path(arguments.directory), datetime.datetime.now(datetime.UTC)
    try:
        _check_kind(directory, endpoint=arguments.endpoint)
        authority = _authority(directory, now)
        make = _endpoint_certificate if arguments.endpoint else _certificates
        files = make(authority, directory, (*arguments.host, *LOCAL_HOSTS), now, arguments.days)
        present = [path for path in files if path.exists()]
        if present and not arguments.force:
            raise ConfigError(f"{present[0]} exists; with --force it is replaced, by one of the same authority")
        ours = authority.signed
        files |= {directory / "ca.pem": ours.certificate, directory / "ca.key": ours.key}
        for place in sorted({path.parent for path in files}):
            place.mkdir(mode=0o700, parents=True, exist_ok=True)
        for path, content in files.items():
            _write(path, content)
    except OSError as error:
        raise ConfigError(f"cannot write the certificates: {error}; choose another directory") from error
    hosts = ", ".join(arguments.host) or "this machine only (name others with --host)"
    text = _ENDPOINT_NEXT if arguments.endpoint else _WHAT_NEXT
    print(text.format(hosts=hosts, days=arguments.days, directory=directory), end="")
    return 0


def _check_kind(directory: Path, *, endpoint: bool) -> None:
    """See that one authority never signs for cluster and clients alike: an endpoint's key must not pass for a worker's.

    Raises:
        ConfigError: the directory holds the other kind.
    """
    other = directory / PeerRole.WORKER if endpoint else directory / "cert.pem"
    if other.exists():
        kind = "workers and gateways" if endpoint else "an endpoint"
        raise ConfigError(f"{directory} holds certificates for {kind}; use another directory")


def _authority(directory: Path, now: datetime.datetime) -> "Authority":
    """The one in the directory, or a new one."""
    try:
        from twinfer.tls.authority import Authority
    except ImportError as error:
        raise ConfigError("making certificates needs cryptography: pip install 'twinfer[tls]'") from error
    certificate, key = directory / "ca.pem", directory / "ca.key"
    if not certificate.exists() and not key.exists():
        return Authority.create(now)
    if not (certificate.exists() and key.exists()):
        raise ConfigError(f"{directory} has only one of ca.pem and ca.key; bring the other, or use a new directory")
    return Authority.load(certificate.read_bytes(), key.read_bytes())


def _certificates(
    authority: "Authority", directory: Path, hosts: Sequence[str], now: datetime.datetime, days: int
) -> dict[Path, bytes]:
    files: dict[Path, bytes] = {}
    for role in PeerRole:
        certificate, key = authority.issue(role, hosts, now, days)
        place = directory / role
        files |= {
            place / "ca.pem": authority.signed.certificate,
            place / "cert.pem": certificate,
            place / "key.pem": key,
        }
    return files


def _endpoint_certificate(
    authority: "Authority", directory: Path, hosts: Sequence[str], now: datetime.datetime, days: int
) -> dict[Path, bytes]:
    certificate, key = authority.issue(None, hosts, now, days)
    return {directory / "cert.pem": certificate, directory / "key.pem": key}


def _write(path: Path, content: bytes) -> None:
    """All of it or nothing, readable to this user alone."""
    fresh = path.with_name(f".{path.name}.new")
    fresh.unlink(missing_ok=True)
    with open(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(content)
    fresh.replace(path)
