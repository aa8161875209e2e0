"""Which of a worker's endpoints another one pulls from."""

from collections.abc import Collection
from typing import NamedTuple

from twinfer.core.capabilities import Endpoint
from twinfer.core.errors import TransportError


class Choice(NamedTuple):
    """An endpoint, and why this one."""

    endpoint: Endpoint
    reason: str


def choose_endpoint(
    endpoints: Collection[Endpoint], my_host: str, wanted: str = "auto", supported: Collection[str] = ("shm", "tcp")
) -> Choice:
    """Shared memory on one host where both sides have it, else TCP; or the transport that is wanted.

    Args:
        endpoints: what the other worker offers.
        my_host: ``host_id()`` of this one.
        wanted: ``auto`` or the name of a transport.
        supported: transports of this worker.

    Raises:
        TransportError: none fits; the message says what was offered.
    """
    same_host = [endpoint.transport for endpoint in endpoints if endpoint.host == my_host]
    usable = {
        e.transport: e for e in endpoints if e.transport in supported and (e.transport != "shm" or e.host == my_host)
    }
    if wanted != "auto":
        if wanted in usable:
            return Choice(usable[wanted], f"{wanted} is what the configuration asks for")
    elif "shm" in usable:
        return Choice(usable["shm"], "shm because both workers are on one host")
    elif "tcp" in usable:
        why = "this worker or its peer has no shm" if same_host else "the workers are on different hosts"
        return Choice(usable["tcp"], f"tcp because {why}")
    raise TransportError(_misfit(endpoints, my_host, wanted, supported))


def _misfit(endpoints: Collection[Endpoint], my_host: str, wanted: str, supported: Collection[str]) -> str:
    offered = ", ".join(f"{e.transport} {'on this host' if e.host == my_host else 'elsewhere'}" for e in endpoints)
    return (
        f"no way to pull KV (transport = {wanted!r}): the source offers {offered or 'nothing'}, this worker has "
        f"{', '.join(supported) or 'none'}; set link.transport to one that both have"
    )
