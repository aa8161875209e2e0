"""Certificates that are replaced under a running process."""

import os
import shutil
from pathlib import Path

import pytest

from tests.certificates import Cluster
from twinfer.core.config import TlsConfig
from twinfer.core.errors import ConfigError
from twinfer.tls.credentials import Credentials, load_credentials
from twinfer.tls.renewal import Renewal
from twinfer.tls.roles import PeerRole

FILES = ("ca", "cert", "key")


def put(config: TlsConfig, place: Path, *names: str) -> TlsConfig:
    """Copies of these files, or of all, as an operator replaces them: whole, under the old name."""
    place.mkdir(exist_ok=True)
    for name in names or FILES:
        shutil.copy(getattr(config, name), place / "new")
        os.replace(place / "new", place / f"{name}.pem")
    return TlsConfig(*(str(place / f"{name}.pem") for name in FILES))


def shown(credentials: Credentials) -> list[int]:
    """Which objects new connections are made with."""
    return [id(credentials.pem), id(credentials.server), id(credentials.client)]


def watched(config: TlsConfig) -> tuple[Credentials, Renewal]:
    """A running worker's."""
    credentials = load_credentials(config, PeerRole.WORKER)
    assert credentials is not None
    return credentials, Renewal(credentials, config.files)


def test_new_files_are_taken_once(cluster: Cluster, tmp_path: Path) -> None:
    """Contexts for sockets and bytes for gRPC change together, and stay until the files change again."""
    config = put(cluster.worker, tmp_path / "own")
    credentials, renewal = watched(config)
    kept = (credentials.pem, credentials.server, credentials.client)  # so that no new object has an old one's id
    before = shown(credentials)
    assert not renewal.look()
    assert shown(credentials) == before == [id(each) for each in kept]
    put(cluster.files(tmp_path / "new", PeerRole.WORKER), tmp_path / "own", "cert", "key")
    assert renewal.look()
    assert not renewal.look()
    assert not set(shown(credentials)).intersection(before)
    assert credentials.pem.certificate == Path(config.cert).read_bytes()


def test_half_of_a_pair_is_waited_for(cluster: Cluster, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A certificate whose key is not there yet changes nothing, and is said once; with its key it is taken."""
    config = put(cluster.worker, tmp_path / "own")
    credentials, renewal = watched(config)
    before, new = credentials.pem, cluster.files(tmp_path / "new", PeerRole.WORKER)
    put(new, tmp_path / "own", "cert")
    assert [renewal.look(), renewal.look()] == [False, False]
    assert credentials.pem is before
    assert [record.getMessage().partition(":")[0] for record in caplog.records] == [
        "the certificate stays as it was, since the new one cannot be used"
    ]
    put(new, tmp_path / "own", "key")
    assert renewal.look()


def test_what_was_refused_is_read_again(cluster: Cluster, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Though no file changes: it may have become valid, or readable. It is said once."""
    config = put(cluster.worker, tmp_path / "own")
    refusals = [ConfigError("it is not valid yet")] * 2

    class Early:
        """Credentials that are good later."""

        def renew(self) -> bool:
            if refusals:
                raise refusals.pop()
            return True

    renewal = Renewal(Early(), config.files)
    assert [renewal.look() for _ in range(4)] == [False, False, True, False]
    assert [record.levelname for record in caplog.records] == ["WARNING"]


def test_what_changed_before_anybody_looked_is_taken(cluster: Cluster, tmp_path: Path) -> None:
    """Since the files were read, tokenizers and weights may have been, too."""
    config = put(cluster.worker, tmp_path / "own")
    credentials = load_credentials(config, PeerRole.WORKER)
    assert credentials is not None
    put(cluster.files(tmp_path / "new", PeerRole.WORKER), tmp_path / "own")
    assert Renewal(credentials, config.files).look()


@pytest.mark.parametrize("case", ["another role", "expired", "gone"])
def test_what_peers_would_refuse_is_not_taken(cluster: Cluster, tmp_path: Path, case: str) -> None:
    """The process goes on with what it has."""
    config = put(cluster.worker, tmp_path / "own")
    credentials, renewal = watched(config)
    before = credentials.pem
    if case == "gone":
        Path(config.cert).unlink()
    else:
        put(cluster.gateway if case == "another role" else cluster.expired(tmp_path / "old"), tmp_path / "own")
    assert not renewal.look()
    assert credentials.pem is before
    put(cluster.files(tmp_path / "new", PeerRole.WORKER), tmp_path / "own")
    assert renewal.look()
