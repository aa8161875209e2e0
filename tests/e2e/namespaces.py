"""Machines made of nothing: network namespaces joined by virtual cables, with no way to anything outside them.

Needs Linux, root and iproute2. A process that is started inside a namespace sees only its end of the cables.
"""

import contextlib
import ctypes
import os
import secrets
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass

_CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)


def why_not() -> str | None:
    """Why no namespaces can be made here; ``None`` when they can."""
    if shutil.which("ip") is None:
        return "needs the command ip: apt-get install iproute2"
    if os.geteuid() != 0:
        return "needs root, to make network namespaces"
    try:
        with machines(1) as (machine,):
            _ip("netns", "exec", machine.name, "true")
    except subprocess.CalledProcessError as error:
        return f"may make no network namespaces here: {error.stderr.strip()}"
    return None


@dataclass(frozen=True, slots=True)
class Machine:
    """One namespace."""

    name: str

    @contextlib.contextmanager
    def inside(self) -> Iterator[None]:
        """This thread, and the processes that it starts, are on that machine."""
        with open("/proc/thread-self/ns/net") as home, open(f"/run/netns/{self.name}") as there:
            _enter(there.fileno())
            try:
                yield
            finally:
                _enter(home.fileno())


@dataclass(frozen=True, slots=True)
class Cable:
    """A link between two machines; each has an address on it."""

    machine: Machine
    device: str
    addresses: tuple[str, str]

    def pull_out(self) -> None:
        """Nothing gets through, and nobody is told."""
        _ip("-n", self.machine.name, "link", "set", self.device, "down")

    def plug_in(self) -> None:
        """It works again."""
        _ip("-n", self.machine.name, "link", "set", self.device, "up")


@contextlib.contextmanager
def machines(count: int) -> Iterator[list[Machine]]:
    """New machines with nothing but loopback; gone afterwards, with their cables."""
    mark = secrets.token_hex(3)
    made: list[Machine] = []
    try:
        for index in range(count):
            machine = Machine(f"twinfer-test-{mark}-{index}")
            _ip("netns", "add", machine.name)
            made.append(machine)
            _ip("-n", machine.name, "link", "set", "lo", "up")
        yield made
    finally:
        for machine in made:
            _ip("netns", "del", machine.name)


def connect(one: Machine, other: Machine, network: int) -> Cable:
    """Lay a cable; its addresses are 10.231.``network``.1 and .2."""
    device = f"cable{network}"
    _ip("link", "add", device, "netns", one.name, "type", "veth", "peer", "name", device, "netns", other.name)
    addresses = (f"10.231.{network}.1", f"10.231.{network}.2")
    for machine, address in zip((one, other), addresses, strict=True):
        _ip("-n", machine.name, "address", "add", f"{address}/24", "dev", device)
        _ip("-n", machine.name, "link", "set", device, "up")
    return Cable(one, device, addresses)


def _enter(descriptor: int) -> None:
    if _libc.setns(descriptor, _CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "cannot enter a network namespace")


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True, text=True)
