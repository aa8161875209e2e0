"""Whether NIXL is here, how it is loaded, and which network it may use. Nothing is imported before it is needed."""

import importlib
import ipaddress
import logging
import os
import socket
import struct
import sys
from collections.abc import Collection, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

from twinfer.core.errors import ConfigError

if sys.platform == "linux":
    import fcntl

_FLAVOURS = ("nixl_cu13", "nixl_cu12", "nixl_rocm")
"""Imported by these names: the ``nixl`` package that chooses among them imports torch to do so."""
_INFINIBAND = Path("/sys/class/infiniband")
"""Where Linux lists RDMA devices, EFA's among them."""
_SIOCGIFADDR = 0x8915
"""<linux/sockios.h>: the IPv4 address of a network device."""


class Fabric(NamedTuple):
    """The network that agents of this process use.

    Attributes:
        host: address of this machine on it.
        backend: NIXL's plugin: ``UCX``, or ``LIBFABRIC`` for EFA.
        trusted: the operator says that everybody on that network may read and write this process.
    """

    host: str = "127.0.0.1"
    backend: str = "UCX"
    trusted: bool = False


LOOPBACK = Fabric()
"""This machine alone."""


def nixl_available() -> str | None:
    """``None`` when NIXL can be loaded, else why not. Loads nothing."""
    if sys.platform != "linux":
        return "NIXL runs on Linux only"
    if not any(find_spec(flavour) for flavour in _FLAVOURS):
        return "NIXL is not installed; make nixl, or the extra twinfer[nixl], adds it"
    return None


def rdma_devices() -> tuple[str, ...]:
    """Names of this machine's RDMA devices."""
    return tuple(sorted(entry.name for entry in _INFINIBAND.iterdir())) if _INFINIBAND.is_dir() else ()


def load_nixl(fabric: Fabric) -> Any:
    """NIXL's Python interface, after the environment variables that it reads have been set where they are not.

    Raises:
        ConfigError: it is not here, does not load, or ``fabric`` is not to be used as it is.
    """
    check_fabric(fabric)
    for name, value in environment(fabric, rdma_devices()).items():
        os.environ.setdefault(name, value)
    flavours = [flavour for flavour in _FLAVOURS if find_spec(flavour)]
    # Two flavours in one process collide, so one that somebody else has loaded wins.
    flavour = next((flavour for flavour in flavours if flavour in sys.modules), flavours[0])
    raise_exceptions = logging.raiseExceptions
    try:
        library = importlib.import_module(f"{flavour}._api")
    except (ImportError, OSError) as error:
        raise ConfigError(f"NIXL ({flavour}) does not load: {error}; set link.transport to another") from error
    _quieten(logging.getLogger("nixl"))
    logging.raiseExceptions = raise_exceptions  # importing NIXL switches it off for everybody
    return library


def check_fabric(fabric: Fabric) -> None:
    """See that agents may be opened on that network.

    Raises:
        ConfigError: NIXL is not here, or strangers could reach it.
    """
    reason = nixl_available() or exposure(fabric, os.environ, rdma_devices())
    if reason is not None:
        raise ConfigError(reason)


def exposure(fabric: Fabric, environ: Mapping[str, str], rdma: Collection[str]) -> str | None:
    """Why the operator must vouch for that network first; ``None`` when it is private, or has been vouched for."""
    chosen = environment(fabric, rdma)
    if fabric.trusted:
        return None
    if fabric.backend != "UCX" or rdma:
        where = "RDMA devices"
    elif any(environ.get(name, chosen[name]) != chosen[name] for name in ("UCX_TLS", "UCX_NET_DEVICES")):
        where = "what UCX_TLS and UCX_NET_DEVICES name"
    elif not ipaddress.ip_address(fabric.host).is_private:
        where = f"the public address {fabric.host}"
    else:
        return None
    return f"NIXL lets whoever reaches it read this worker: set link.trust_network = true to use {where}"


def environment(fabric: Fabric, rdma: Collection[str]) -> dict[str, str]:
    """What UCX should find in its environment. With RDMA it finds the devices by itself.

    Raises:
        ConfigError: no network device of this machine has that address.
    """
    chosen = {"UCX_TCP_TX_SEG_SIZE": "256k", "UCX_TCP_RX_SEG_SIZE": "256k", "UCX_LOG_FILE": "stderr"}
    if fabric.backend == "UCX" and not rdma:
        chosen |= {"UCX_TLS": "tcp,self", "UCX_NET_DEVICES": _device_of(fabric.host)}
    return chosen


def _device_of(host: str) -> str:
    """The network device with that IPv4 address."""
    try:
        address = ipaddress.IPv4Address(host)
    except ValueError as error:
        raise ConfigError(f"KV over NIXL needs an IPv4 address of this machine, not {host!r}") from error
    wanted = ipaddress.IPv4Address("127.0.0.1") if address.is_loopback else address
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        for _, name in socket.if_nameindex():
            try:
                answer = fcntl.ioctl(probe, _SIOCGIFADDR, struct.pack("256s", name.encode()))
            except OSError:  # it has no address
                continue
            if ipaddress.IPv4Address(answer[20:24]) == wanted:
                return name
    raise ConfigError(f"no network device of this machine has the address {host}; KV cannot be served there")


def _quieten(logger: logging.Logger) -> None:
    """A worker's standard output carries its notices: NIXL's chatter goes where our own does, without the chat."""
    for handler in list(logger.handlers):
        logger.removeHandler(handler)
    logger.propagate = True
    logger.setLevel(logging.WARNING)
