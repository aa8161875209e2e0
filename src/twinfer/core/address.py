"""Addresses of the control plane, ``unix:/path`` or ``host:port``, and which of them stay on this machine."""

import ipaddress
from typing import NamedTuple

from twinfer.core.errors import ConfigError

HOW_TO_LEAVE = (
    "make certificates with `twinfer certs DIR --host HOST` and name them in the [tls] table of the configuration"
)


class HostPort(NamedTuple):
    """A TCP address; an IPv6 host stands without brackets."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def is_unix(address: str) -> bool:
    """Whether it is a socket file."""
    return address.startswith("unix:")


def host_port(address: str) -> HostPort:
    """The parts of a TCP address.

    Raises:
        ConfigError: it has none.
    """
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or int(port) > 65535:
        raise ConfigError(f"{address!r} is no address: write host:port or unix:/path")
    return HostPort(host.removeprefix("[").removesuffix("]"), int(port))


def is_loopback(host: str) -> bool:
    """Whether only processes of this machine can be behind that name."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def announced(host: str, advertise: str) -> str:
    """The host that a server tells others to call: what it advertises, else what it listens on.

    Raises:
        ConfigError: that stands for all addresses of the machine, so that nobody could call it.
    """
    found = advertise or host
    try:
        if not ipaddress.ip_address(found).is_unspecified:
            return found
    except ValueError:
        return found
    raise ConfigError(f"{found} tells nobody where to call: say with --advertise under which host others reach it")


def reachable(address: str, advertise: str) -> str:
    """The address that others call when a server listens on this one.

    Raises:
        ConfigError: as :func:`announced` does.
    """
    if is_unix(address):
        return address
    host, port = host_port(address)
    return str(HostPort(announced(host, advertise), port))


def stays_here(address: str) -> bool:
    """Whether nothing said to this address leaves the machine.

    Raises:
        ConfigError: it is none.
    """
    return is_unix(address) or is_loopback(host_port(address).host)


def check_address(address: str, *, encrypted: bool) -> None:
    """See that others on the network cannot read along.

    Raises:
        ConfigError: it is no address, or the way there leaves this machine unencrypted.
    """
    if not stays_here(address) and not encrypted:
        raise ConfigError(f"{address} is not on this machine, and nothing leaves it unencrypted: {HOW_TO_LEAVE}")
