"""What a certificate says its holder is, as a URI among its subject alternative names."""

from collections.abc import Collection, Iterable
from enum import StrEnum

LOCAL_HOSTS = ("localhost", "127.0.0.1", "::1")
"""How a machine calls itself; every certificate is good for these."""


class PeerRole(StrEnum):
    """A kind of process of the cluster."""

    WORKER = "worker"
    """Serves the control plane and KV, and calls other workers."""
    GATEWAY = "gateway"
    """Calls workers; nobody calls it with a certificate."""

    @property
    def uri(self) -> str:
        """How a certificate says it, in SPIFFE's spelling."""
        return f"spiffe://twinfer/{self.value}"


def worker_uri(worker: str) -> str:
    """How a certificate says that its holder is this worker and no other."""
    return f"{PeerRole.WORKER.uri}/{worker}"


def name_refusal(names: Collection[str], worker: str) -> str | None:
    """Why a peer whose certificate carries these alternative names is not this worker; ``None`` when it may be.

    A certificate that names no worker is any worker's.
    """
    prefix = worker_uri("")
    named = [name.removeprefix(prefix) for name in names if name.startswith(prefix)]
    if not named or worker in named:
        return None
    return f"its certificate is for {' and '.join(named)}, and it says that it is {worker}"


def role_refusal(names: Iterable[str], allowed: Iterable[PeerRole]) -> str | None:
    """Why a peer whose certificate carries these alternative names may not do this; ``None`` when it may."""
    wanted = [role.uri for role in allowed]
    if set(wanted).intersection(names):
        return None
    shown = [name for name in names if name.startswith("spiffe:")]
    return f"its certificate is for {', '.join(shown) or 'no role'}, and {' or '.join(wanted)} is needed"
