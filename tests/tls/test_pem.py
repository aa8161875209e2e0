"""Certificates from bytes, and pairs of which one half is yet to come."""

import os
import ssl
from pathlib import Path

import pytest

from tests.certificates import Cluster
from twinfer.tls.pem import load_authority, load_chain, settled
from twinfer.tls.roles import PeerRole


def context_of(certificate: bytes, key: bytes) -> ssl.SSLContext:
    """What shows this pair."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    load_chain(context, certificate, key)
    return context


def test_bytes_are_used_as_files_would_be(cluster: Cluster) -> None:
    """And nothing of them is left open."""
    authority, certificate, key = (Path(path).read_bytes() for path in cluster.worker.files)
    before = len(os.listdir("/proc/self/fd"))
    context = context_of(certificate, key)
    load_authority(context, authority)
    assert context.cert_store_stats()["x509_ca"] == 1
    for wrong in (b"", b"nothing", os.urandom(100)):
        with pytest.raises(ssl.SSLError):
            load_authority(context, wrong)
        with pytest.raises(ssl.SSLError):
            load_chain(context, wrong, key)
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_key_that_is_yet_to_come_is_waited_for(cluster: Cluster, tmp_path: Path) -> None:
    """For a moment; a pair that stays wrong is an error, and so is at once what no waiting mends."""
    new = cluster.files(tmp_path, PeerRole.WORKER)
    keys = [cluster.worker.key, new.key]
    assert settled(lambda: context_of(Path(new.cert).read_bytes(), Path(keys.pop(0)).read_bytes()))
    with pytest.raises(ssl.SSLError, match="MISMATCH"):
        settled(lambda: context_of(Path(new.cert).read_bytes(), Path(cluster.worker.key).read_bytes()))
    keys = [os.devnull]
    with pytest.raises(ssl.SSLError):
        settled(lambda: context_of(Path(new.cert).read_bytes(), Path(keys.pop(0)).read_bytes()))
