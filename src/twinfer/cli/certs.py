"""``twinfer certs``: certificates with which a cluster's processes trust each other, or clients the endpoint."""

import argparse
import datetime
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
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


_WORKER_NEXT = """\
made a certificate for {workers} on {hosts}, valid for {days} days:
  {place}   copy to that machine, in place of the certificate of any worker

Nothing else can be done with it: its holder neither starts nor passes KV under another worker's name.
"""


def run(arguments: argparse.Namespace) -> int:
    """Write the files, and say what to do with them."""
    if arguments.days < 1:
        raise ConfigError(f"--days {arguments.days}: a certificate is valid for at least one day")
    directory, now = Path(arguments.directory), datetime.datetime.now(datetime.UTC)
    try:
        _check_kind(directory, endpoint=arguments.endpoint)
        _check_workers(arguments.worker, endpoint=arguments.endpoint)
        order = _Order(_authority(directory, now), (*arguments.host, *LOCAL_HOSTS), now, arguments.days)
        if arguments.endpoint:
            files = _endpoint_certificate(order, directory)
        elif arguments.worker:
            files = order.files(directory / arguments.worker[0], PeerRole.WORKER, arguments.worker)
        else:
            files = {path: each for role in PeerRole for path, each in order.files(directory / role, role).items()}
        present = [path for path in files if path.exists()]
        if present and not arguments.force:
            raise ConfigError(f"{present[0]} exists; with --force it is replaced, by one of the same authority")
        ours = order.authority.signed
        files |= {directory / "ca.pem": ours.certificate, directory / "ca.key": ours.key}
        for place in sorted({path.parent for path in files}):
            place.mkdir(mode=0o700, parents=True, exist_ok=True)
        for path, content in files.items():
            _write(path, content)
    except OSError as error:
        raise ConfigError(f"cannot write the certificates: {error}; choose another directory") from error
    print(_what_next(arguments), end="")
    return 0


def _what_next(arguments: argparse.Namespace) -> str:
    text = _ENDPOINT_NEXT if arguments.endpoint else _WORKER_NEXT if arguments.worker else _WHAT_NEXT
    return text.format(
        hosts=", ".join(arguments.host) or "this machine only (name others with --host)",
        days=arguments.days,
        directory=arguments.directory,
        workers=" and ".join(arguments.worker),
        place=f"{arguments.directory}/{arguments.worker[0]}" if arguments.worker else "",
    )


def _check_workers(workers: Sequence[str], *, endpoint: bool) -> None:
    """See that certificates can be made for these.

    Raises:
        ConfigError: a name is none, or an endpoint is no worker.
    """
    if workers and endpoint:
        raise ConfigError("--endpoint makes no worker's certificate; leave --worker out")
    for worker in workers:
        if worker in set(PeerRole) or not re.fullmatch(r"[A-Za-z0-9][\w.-]*", worker, re.ASCII):
            raise ConfigError(f"--worker {worker!r} is no worker's name; they are POOL-INDEX, such as decode-0")


def _check_kind(directory: Path, *, endpoint: bool) -> None:
    """See that one authority never signs for cluster and clients alike: an endpoint's key must not pass for a worker's.

    Raises:
        ConfigError: the directory holds the other kind.
    """
    holds_other = any(directory.glob("*/cert.pem")) if endpoint else (directory / "cert.pem").exists()
    if holds_other:
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


@dataclass(frozen=True, slots=True)
class _Order:
    """Who signs, for which hosts, from when on and for how long."""

    authority: "Authority"
    hosts: Sequence[str]
    now: datetime.datetime
    days: int

    def files(self, place: Path, role: PeerRole, workers: Sequence[str] = ()) -> dict[Path, bytes]:
        """What a process is given, to be put in this place."""
        certificate, key = self.authority.issue(role, self.hosts, self.now, self.days, workers)
        return {
            place / "ca.pem": self.authority.signed.certificate,
            place / "cert.pem": certificate,
            place / "key.pem": key,
        }


def _endpoint_certificate(order: _Order, directory: Path) -> dict[Path, bytes]:
    certificate, key = order.authority.issue(None, order.hosts, order.now, order.days)
    return {directory / "cert.pem": certificate, directory / "key.pem": key}


def _write(path: Path, content: bytes) -> None:
    """All of it or nothing, readable to this user alone."""
    fresh = path.with_name(f".{path.name}.new")
    fresh.unlink(missing_ok=True)
    with open(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(content)
    fresh.replace(path)
