"""What a process finds out about its own certificate before its peers do."""

import os
from pathlib import Path

import msgspec
import pytest

from tests.certificates import Cluster
from twinfer.core.config import TlsConfig
from twinfer.core.errors import ConfigError
from twinfer.tls.credentials import load_credentials
from twinfer.tls.roles import PeerRole, name_refusal, role_refusal


def test_none_configured_is_none():
    """An empty table means plain, within this machine."""
    assert load_credentials(TlsConfig(), PeerRole.WORKER) is None


@pytest.mark.parametrize("role", PeerRole)
def test_good_ones_are_loaded(cluster: Cluster, role: PeerRole):
    """The bytes are those of the files."""
    config = cluster.worker if role is PeerRole.WORKER else cluster.gateway
    found = load_credentials(config, role)
    assert found is not None
    assert list(found.pem) == [Path(path).read_bytes() for path in msgspec.structs.astuple(config)]


def test_another_role_is_said(cluster: Cluster):
    """A worker does not start with a gateway's certificate, nor the other way round."""
    for config, role in ((cluster.gateway, PeerRole.WORKER), (cluster.worker, PeerRole.GATEWAY)):
        with pytest.raises(ConfigError, match=f"is not for a {role}"):
            load_credentials(config, role)


def test_a_certificate_of_other_workers_is_said(cluster: Cluster, tmp_path: Path):
    """One that is bound to names starts those workers only; one that is not starts any."""
    config = cluster.named(tmp_path, "decode-0", "decode-1")
    for worker in ("decode-0", "decode-1"):
        assert load_credentials(config, PeerRole.WORKER, worker) is not None
        assert load_credentials(cluster.worker, PeerRole.WORKER, worker) is not None
    with pytest.raises(ConfigError, match="is not for prefill-0: its certificate is for decode-0 and decode-1, and"):
        load_credentials(config, PeerRole.WORKER, "prefill-0")


def test_a_name_is_found_among_the_names():
    """Whole and under our own authority's spelling: no part of a name, no other path, no host of that name."""
    bound = ["spiffe://twinfer/worker", "spiffe://twinfer/worker/decode-1", "decode-0"]
    assert name_refusal(bound, "decode-1") is None
    assert name_refusal(bound[:1], "decode-1") is None
    for worker in ("decode-0", "decode-", "decode-10", "worker", ""):
        assert "certificate is for decode-1, and it says" in str(name_refusal(bound, worker))


def test_what_peers_would_refuse_is_said(cluster: Cluster, tmp_path: Path):
    """An expired certificate, one of another authority, and one without its key are found at the start."""
    foreign = Cluster(tmp_path / "foreign").worker
    cases = {
        "certificate has expired": cluster.expired(tmp_path / "expired"),
        "unable to get local issuer|self-signed|signature failure": TlsConfig(
            cluster.worker.ca, foreign.cert, foreign.key
        ),
        "key values mismatch": TlsConfig(cluster.worker.ca, cluster.worker.cert, cluster.gateway.key),
    }
    for reason, config in cases.items():
        with pytest.raises(ConfigError, match=f"(?s)({reason}).*twinfer certs"):
            load_credentials(config, PeerRole.WORKER)


@pytest.mark.parametrize("field", ["ca", "cert", "key"])
def test_files_that_are_missing_or_no_pem(cluster: Cluster, tmp_path: Path, field: str):
    """The message names the file."""
    path = tmp_path / "file.pem"
    config = msgspec.structs.replace(cluster.worker, **{field: str(path)})
    with pytest.raises(ConfigError, match=r"cannot read .*file\.pem.*No such file"):
        load_credentials(config, PeerRole.WORKER)
    path.write_bytes(os.urandom(100))
    with pytest.raises(ConfigError, match=r"file\.pem"):
        load_credentials(config, PeerRole.WORKER)


def test_a_role_is_found_among_the_names():
    """Other names do not matter; the refusal says which role was found, and which is needed."""
    assert role_refusal(["localhost", "spiffe://twinfer/worker"], [PeerRole.WORKER]) is None
    assert role_refusal(["spiffe://twinfer/gateway"], PeerRole) is None
    for names in ((), ("worker",), ("spiffe://twinfer/worker/x",), ("spiffe://other/worker",)):
        assert "spiffe://twinfer/worker is needed" in str(role_refusal(names, [PeerRole.WORKER]))
