"""A private certificate authority: one key that signs what the processes of one cluster show each other.

Needs the ``cryptography`` package; only ``twinfer certs`` imports this file.
"""

import datetime
import ipaddress
from collections.abc import Sequence
from typing import NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from twinfer.core.errors import ConfigError
from twinfer.tls.roles import PeerRole, worker_uri

AUTHORITY_DAYS = 3650
_SKEW = datetime.timedelta(hours=1)
"""Certificates are valid from a little before now: clocks of machines differ."""


class Signed(NamedTuple):
    """A certificate and its key, in PEM."""

    certificate: bytes
    key: bytes


class Authority:
    """Signs certificates.

    Args:
        certificate: its own.
        key: its private key.
    """

    def __init__(self, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> None:
        self._certificate = certificate
        self._key = key

    @classmethod
    def create(cls, now: datetime.datetime) -> "Authority":
        """A new one, valid for ten years."""
        key = ec.generate_private_key(ec.SECP256R1())
        name = _name("Twinfer cluster authority")
        builder = _builder(name, name, key, now, AUTHORITY_DAYS)
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        builder = builder.add_extension(_key_usage(signs_certificates=True), critical=True)
        return cls(builder.sign(key, hashes.SHA256()), key)

    @classmethod
    def load(cls, certificate: bytes, key: bytes) -> "Authority":
        """One that was made before.

        Raises:
            ConfigError: these are not the PEM files of an authority.
        """
        try:
            loaded = serialization.load_pem_private_key(key, password=None)
            found = x509.load_pem_x509_certificate(certificate)
        except (ValueError, TypeError) as error:
            raise ConfigError(f"the authority's files cannot be read: {error}; use another directory") from error
        if not isinstance(loaded, ec.EllipticCurvePrivateKey) or found.public_key() != loaded.public_key():
            raise ConfigError("the authority's key does not belong to its certificate; use another directory")
        return cls(found, loaded)

    @property
    def signed(self) -> Signed:
        """Its own certificate and key."""
        return _pem(self._certificate, self._key)

    def issue(
        self,
        role: PeerRole | None,
        hosts: Sequence[str],
        now: datetime.datetime,
        days: int,
        workers: Sequence[str] = (),
    ) -> Signed:
        """A certificate for one role (``None``: for none) on these hosts; a worker's may be for some workers only.

        A gateway's is not fit for servers.

        Raises:
            ConfigError: a host is neither a name nor an IP address, or the authority's own time would be over.
        """
        if days > (self._certificate.not_valid_after_utc - now).days:
            raise ConfigError(
                f"the authority ends on {self._certificate.not_valid_after_utc:%Y-%m-%d}, before the certificate "
                "would; ask for fewer --days, or make another authority in another directory"
            )
        key = ec.generate_private_key(ec.SECP256R1())
        builder = _builder(_name(f"twinfer {role or 'process'}"), self._certificate.subject, key, now, days)
        names: list[x509.GeneralName] = [_general_name(host) for host in dict.fromkeys(hosts)]
        usages = [ExtendedKeyUsageOID.CLIENT_AUTH]
        if role is not None:
            uris = (role.uri, *(worker_uri(worker) for worker in workers))
            names = [*(x509.UniformResourceIdentifier(uri) for uri in uris), *names]
        if role is not PeerRole.GATEWAY:
            usages.append(ExtendedKeyUsageOID.SERVER_AUTH)
        issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        for extension, critical in (
            (x509.BasicConstraints(ca=False, path_length=None), True),
            (_key_usage(signs_certificates=False), True),
            (x509.ExtendedKeyUsage(usages), False),
            (x509.SubjectAlternativeName(names), False),
            (issuer, False),
        ):
            builder = builder.add_extension(extension, critical=critical)
        return _pem(builder.sign(self._key, hashes.SHA256()), key)


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, now: datetime.datetime, days: int
) -> x509.CertificateBuilder:
    public = key.public_key()
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _SKEW)
        .not_valid_after(now + datetime.timedelta(days=days))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
    )


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        pass
    try:
        return x509.DNSName(host)
    except ValueError as error:
        raise ConfigError(f"{host!r} is neither an IP address nor a host name in ASCII") from error


def _key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _pem(certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> Signed:
    return Signed(
        certificate.public_bytes(serialization.Encoding.PEM),
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()),
    )
