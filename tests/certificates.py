"""Certificates of a cluster for tests, good and bad ones, made by the authority that users have too."""

import datetime
from collections.abc import Sequence
from pathlib import Path

from twinfer.core.config import TlsConfig
from twinfer.tls.authority import Authority, Signed
from twinfer.tls.credentials import Credentials, load_credentials
from twinfer.tls.roles import LOCAL_HOSTS, PeerRole

DAY = datetime.timedelta(days=1)


class Cluster:
    """One authority, and what it has signed, in files below a directory."""

    def __init__(self, directory: Path) -> None:
        self._now = datetime.datetime.now(datetime.UTC)
        self._authority = Authority.create(self._now - 100 * DAY)
        self.worker = self.files(directory / "worker", PeerRole.WORKER)
        self.gateway = self.files(directory / "gateway", PeerRole.GATEWAY)

    def credentials(self, role: PeerRole) -> Credentials:
        """Good ones."""
        found = load_credentials(self.worker if role is PeerRole.WORKER else self.gateway, role)
        assert found is not None
        return found

    def expired(self, directory: Path) -> TlsConfig:
        """A worker's that ended yesterday."""
        return self._write(directory, self._authority.issue(PeerRole.WORKER, LOCAL_HOSTS, self._now - 30 * DAY, 29))

    def named(self, directory: Path, *workers: str, hosts: Sequence[str] = ()) -> TlsConfig:
        """One for these workers and no other, on these hosts and this machine."""
        signed = self._authority.issue(PeerRole.WORKER, (*hosts, *LOCAL_HOSTS), self._now, 30, workers)
        return self._write(directory, signed)

    def files(self, directory: Path, role: PeerRole | None, *hosts: str, local: bool = True) -> TlsConfig:
        """A new one for a role, or for none, on these hosts and this machine."""
        return self._write(
            directory, self._authority.issue(role, (*hosts, *(LOCAL_HOSTS if local else ())), self._now, 30)
        )

    def _write(self, directory: Path, signed: Signed) -> TlsConfig:
        directory.mkdir(parents=True, exist_ok=True)
        for file, content in (("ca", self._authority.signed.certificate), ("cert", signed[0]), ("key", signed[1])):
            (directory / f"{file}.pem").write_bytes(content)
        return TlsConfig(*(str(directory / f"{file}.pem") for file in ("ca", "cert", "key")))
