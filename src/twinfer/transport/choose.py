"""Which of a worker's endpoints another one pulls from: the order in which to try them."""

from collections.abc import Collection
from typing import NamedTuple

from twinfer.core.capabilities import Endpoint
from twinfer.core.errors import TransportError

PREFERENCE = ("shm", "nixl", "tcp+tls", "tcp")
"""With ``auto``, the best first."""


class Choice(NamedTuple):
    """An endpoint, and why this one, in words that follow its transport's name."""

    endpoint: Endpoint
    reason: str


def rank_endpoints(
    endpoints: Collection[Endpoint], my_host: str, wanted: str = "auto", supported: Collection[str] = PREFERENCE
) -> tuple[Choice, ...]:
    """The endpoints to try, in order: the one transport that is wanted, or all that both sides have, the best first.

    Args:
        endpoints: what the other worker offers.
        my_host: ``host_id()`` of this one.
        wanted: ``auto`` or the name of a transport.
        supported: transports of this worker.

    Raises:
        TransportError: none fits; the message says what was offered.
    """
    usable = {
        e.transport: e for e in endpoints if e.transport in supported and (e.transport != "shm" or e.host == my_host)
    }
    names = [name for name in PREFERENCE if name in usable] if wanted == "auto" else [wanted]
    if not usable.keys() >= set(names) or not names:
        raise TransportError(_misfit(endpoints, my_host, wanted, supported))
    return tuple(Choice(usable[name], _reason(usable[name], my_host, wanted)) for name in names)


def _reason(endpoint: Endpoint, my_host: str, wanted: str) -> str:
    if wanted != "auto":
        return "is what the configuration asks for"
    if endpoint.transport == "nixl":
        return "because both workers have RDMA"
    if endpoint.host != my_host:
        return "because the workers are on different hosts"
    if endpoint.transport == "shm":
        return "because both workers are on one host"
    return "because this worker or its peer has nothing faster"


def _misfit(endpoints: Collection[Endpoint], my_host: str, wanted: str, supported: Collection[str]) -> str:
    offered = ", ".join(f"{e.transport} {'on this host' if e.host == my_host else 'elsewhere'}" for e in endpoints)
    return (
        f"no way to pull KV (transport = {wanted!r}): the source offers {offered or 'nothing'}, this worker has "
        f"{', '.join(supported) or 'none'}; set link.transport to one that both have"
    )
