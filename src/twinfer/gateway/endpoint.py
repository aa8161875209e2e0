"""The certificate that clients are shown, which may be replaced while the gateway runs."""

import ssl
from pathlib import Path
from typing import NamedTuple

from twinfer.core.config import GatewayConfig
from twinfer.core.errors import ConfigError
from twinfer.tls.credentials import tls_reason
from twinfer.tls.pem import load_chain, settled


class _Shown(NamedTuple):
    certificate: bytes
    key: bytes
    context: ssl.SSLContext


class Endpoint:
    """TLS as a gateway's clients see it.

    Args:
        config: names the files.
        protocols: for ALPN, the best first.

    Attributes:
        context: for the listening socket; each handshake is made with what is current then.

    Raises:
        ConfigError: the certificate cannot be used.
    """

    def __init__(self, config: GatewayConfig, protocols: list[str]) -> None:
        self._config = config
        self._protocols = protocols
        self._shown = self._read()
        self.context = self._make(self._shown.certificate, self._shown.key)
        self.context.sni_callback = self._show  # called for clients, too, that name no host

    @property
    def files(self) -> tuple[str, ...]:
        """What it is read from."""
        return self._config.tls_cert, self._config.tls_key

    def renew(self) -> bool:
        """Read the files again, for connections to come; from any thread. Whether they had changed.

        Raises:
            ConfigError: the new certificate cannot be used; then all stays as it was.
        """
        shown = self._read()
        if shown[:2] == self._shown[:2]:
            return False
        self._shown = shown
        return True

    def _show(self, handshake: ssl.SSLObject, _: str | None, __: ssl.SSLContext) -> None:
        handshake.context = self._shown.context

    def _read(self) -> _Shown:
        config = self._config
        try:
            return settled(self._read_once)
        except ssl.SSLError as error:
            raise ConfigError(
                f"the certificate {config.tls_cert} cannot be used with {config.tls_key}: {tls_reason(error)}; "
                "make one with: twinfer certs DIR --endpoint"
            ) from error
        except OSError as error:
            raise ConfigError(f"cannot read gateway.tls_cert or gateway.tls_key: {error.strerror}") from error

    def _read_once(self) -> _Shown:
        certificate, key = (Path(path).read_bytes() for path in self.files)
        return _Shown(certificate, key, self._make(certificate, key))

    def _make(self, certificate: bytes, key: bytes) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_alpn_protocols(self._protocols)
        load_chain(context, certificate, key)
        return context
