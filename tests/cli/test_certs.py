"""``twinfer certs``: the files, who may read them, and that nothing is overwritten by mistake."""

import re
import sys
from pathlib import Path

import pytest
from cryptography import x509

from twinfer.cli import main
from twinfer.core.config import TlsConfig
from twinfer.core.config_text import parse_config
from twinfer.core.errors import ConfigError
from twinfer.tls.credentials import load_credentials
from twinfer.tls.roles import PeerRole

FILES = [
    "ca.key",
    "ca.pem",
    *(f"{role}/{name}.pem" for role in ("gateway", "worker") for name in ("ca", "cert", "key")),
]


def contents(directory: Path) -> dict[str, bytes]:
    """All files, by relative name."""
    return {str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def test_what_it_makes_is_what_the_configuration_takes(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """Each role's directory can be named in [tls] as the command says, and only this user can read it."""
    directory = tmp_path / "certificates"
    assert main(["certs", str(directory), "--host", "10.0.0.5", "--host", "decode.example.net"]) == 0
    assert sorted(contents(directory)) == sorted(FILES)
    assert {path.stat().st_mode & 0o777 for path in directory.rglob("*") if path.is_file()} == {0o600}
    assert directory.stat().st_mode & 0o777 == 0o700
    said = capsys.readouterr().out
    assert "10.0.0.5, decode.example.net" in said
    table = said[said.index("  [tls]") :]
    for role in PeerRole:
        config = parse_config(table.replace("/etc/twinfer/tls", str(directory / role)))
        assert load_credentials(config.tls, role) is not None


def test_the_certificate_names_the_hosts(tmp_path: Path):
    """A peer that dials one of them, or this machine, finds it in the worker's certificate."""
    main(["certs", str(tmp_path), "--host", "10.0.0.5", "--host", "decode.example.net", "--host", "fd00::5"])
    certificate = x509.load_pem_x509_certificate((tmp_path / "worker/cert.pem").read_bytes())
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert [str(name.value) for name in names] == [
        "spiffe://twinfer/worker",
        *("10.0.0.5", "decode.example.net", "fd00::5"),
        *("localhost", "127.0.0.1", "::1"),
    ]


def test_a_certificate_for_named_workers(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """It joins those that are there, is of the same authority, and starts these workers and no other."""
    assert main(["certs", str(tmp_path)]) == 0
    before = contents(tmp_path)
    capsys.readouterr()
    named = ["--host", "10.0.0.6", "--worker", "decode-0", "--worker", "decode-1"]
    assert main(["certs", str(tmp_path), *named]) == 0
    said = capsys.readouterr().out
    assert f"for decode-0 and decode-1 on 10.0.0.6, valid for 365 days:\n  {tmp_path}/decode-0 " in said
    made = contents(tmp_path)
    assert sorted(set(made) - set(before)) == [f"decode-0/{name}.pem" for name in ("ca", "cert", "key")]
    assert {name: made[name] for name in before} == before
    config = TlsConfig(*(str(tmp_path / "decode-0" / f"{name}.pem") for name in ("ca", "cert", "key")))
    assert load_credentials(config, PeerRole.WORKER, "decode-1") is not None
    with pytest.raises(ConfigError, match="is not for decode-2"):
        load_credentials(config, PeerRole.WORKER, "decode-2")


def test_nothing_is_overwritten_without_force(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """A second run changes nothing and says how; with --force the same authority signs new ones."""
    assert main(["certs", str(tmp_path)]) == 0
    before = contents(tmp_path)
    assert main(["certs", str(tmp_path)]) == 2
    assert "--force" in capsys.readouterr().err
    assert before == contents(tmp_path)
    assert main(["certs", str(tmp_path), "--force", "--host", "10.0.0.9"]) == 0
    after = contents(tmp_path)
    assert sorted(name for name in before if before[name] == after[name]) == [
        "ca.key",
        "ca.pem",
        "gateway/ca.pem",
        "worker/ca.pem",
    ]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--host", "b\u00fccher.example"], "neither an IP address nor a host name"),
        (["--days", "0"], "at least one day"),
        (["--days", "99999999999"], "ask for fewer --days"),
        (["--worker", "gateway"], "is no worker's name"),
        (["--worker", "../decode-0"], "is no worker's name"),
        (["--worker", "decode-0", "--endpoint"], "leave --worker out"),
    ],
)
def test_what_cannot_be_is_said(
    tmp_path: Path, arguments: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
):
    """In one sentence, and without a file."""
    assert main(["certs", str(tmp_path / "new"), *arguments]) == 2
    assert re.fullmatch(f"twinfer: .*{sentence}.*\n", capsys.readouterr().err)
    assert contents(tmp_path) == {}


def test_half_an_authority_is_no_authority(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """Without its key, or with another one, nothing is signed."""
    main(["certs", str(tmp_path)])
    (tmp_path / "ca.key").rename(tmp_path / "elsewhere.key")
    assert main(["certs", str(tmp_path), "--force"]) == 2
    assert "only one of ca.pem and ca.key" in capsys.readouterr().err
    (tmp_path / "ca.key").write_bytes((tmp_path / "worker/key.pem").read_bytes())
    assert main(["certs", str(tmp_path), "--force"]) == 2
    assert "does not belong" in capsys.readouterr().err
    (tmp_path / "ca.key").write_bytes(b"nothing")
    assert main(["certs", str(tmp_path), "--force"]) == 2
    assert "cannot be read" in capsys.readouterr().err


def test_a_directory_that_cannot_be_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """The message says to choose another."""
    (tmp_path / "file").write_text("")
    assert main(["certs", str(tmp_path / "file")]) == 2
    assert "choose another directory" in capsys.readouterr().err


def test_without_cryptography_it_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """Only making certificates needs the package, so it is an extra."""
    monkeypatch.setitem(sys.modules, "twinfer.tls.authority", None)
    assert main(["certs", str(tmp_path)]) == 2
    assert "pip install 'twinfer[tls]'" in capsys.readouterr().err


def test_half_a_tls_table_is_an_error():
    """A certificate without its key, or without an authority, is a mistake and not a wish for plain connections."""
    with pytest.raises(ConfigError, match=r"configuration key 'tls': .* needs all of"):
        parse_config(overrides=["tls.cert=worker.pem"])


def test_a_worker_elsewhere_needs_certificates(capsys: pytest.CaptureFixture[str]):
    """A listening address outside this machine is refused without [tls], and a wildcard without a name for it."""
    assert main(["worker", "--pool", "decode", "--listen", "10.0.0.5:7001"]) == 2
    assert "twinfer certs DIR --host HOST" in capsys.readouterr().err
    tls = [word for key in ("ca", "cert", "key") for word in ("--set", f"tls.{key}=x.pem")]
    assert main(["worker", "--pool", "decode", "--listen", "0.0.0.0:7001", *tls]) == 2
    assert "--advertise" in capsys.readouterr().err


def test_an_endpoint_has_an_authority_of_its_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """Its certificate carries no role, and neither kind is made in the other's directory."""
    cluster, endpoint = tmp_path / "cluster", tmp_path / "endpoint"
    assert main(["certs", str(endpoint), "--endpoint", "--host", "llm.example.net"]) == 0
    assert sorted(contents(endpoint)) == ["ca.key", "ca.pem", "cert.pem", "key.pem"]
    assert f"gateway.tls_cert={endpoint}/cert.pem" in capsys.readouterr().out
    certificate = x509.load_pem_x509_certificate((endpoint / "cert.pem").read_bytes())
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert [str(name.value) for name in names] == ["llm.example.net", "localhost", "127.0.0.1", "::1"]
    assert main(["certs", str(cluster)]) == 0
    assert main(["certs", str(cluster), "--endpoint"]) == 2
    assert "holds certificates for workers and gateways; use another directory" in capsys.readouterr().err
    assert main(["certs", str(endpoint), "--force"]) == 2
    assert "holds certificates for an endpoint; use another directory" in capsys.readouterr().err
