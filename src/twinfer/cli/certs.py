"""``twinfer certs``: certificates with which workers and gateways of one cluster trust each other."""

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


def run(arguments: argparse.Namespace) -> int:
    """Write the files, and say what to do with them."""
    if arguments.days < 1:
        raise ConfigError(f"--days {arguments.days}: a certificate is valid for at least one day")
    directory, now = Path(arguments.directory), datetime.datetime.now(datetime.UTC)
    try:
        authority = _authority(directory, now)
        files = _certificates(authority, directory, (*arguments.host, *LOCAL_HOSTS), now, arguments.days)
        present = [path for path in files if path.exists()]
        if present and not arguments.force:
            raise ConfigError(f"{present[0]} exists; with --force it is replaced, by one of the same authority")
        ours = authority.signed
        files |= {directory / "ca.pem": ours.certificate, directory / "ca.key": ours.key}
        for place in (directory, *(directory / role for role in PeerRole)):
            place.mkdir(mode=0o700, parents=True, exist_ok=True)
        for path, content in files.items():
            _write(path, content)
    except OSError as error:
        raise ConfigError(f"cannot write the certificates: {error}; choose another directory") from error
    hosts = ", ".join(arguments.host) or "this machine only (name others with --host)"
    print(_WHAT_NEXT.format(hosts=hosts, days=arguments.days, directory=directory), end="")
    return 0


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


def _write(path: Path, content: bytes) -> None:
    """All of it or nothing, readable to this user alone."""
    fresh = path.with_name(f".{path.name}.new")
    fresh.unlink(missing_ok=True)
    with open(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(content)
    fresh.replace(path)
