"""What the parts of a virtual worker share, and whom they reach."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from twinfer.core.capabilities import WorkerIdentity
from twinfer.core.config import HandoffConfig
from twinfer.core.grant import GrantTerms
from twinfer.core.ids import WorkerId
from twinfer.core.messages import ToGateway, ToSink, ToSource
from twinfer.core.tokens import Token
from twinfer.handoff.lease import Lease
from twinfer.simulator.engine import VirtualEngine
from twinfer.simulator.hardware import Hardware
from twinfer.simulator.links import Port
from twinfer.simulator.schedule import Schedule


@dataclass(frozen=True, slots=True)
class Spoken:
    """Tokens of one request as a worker drew them: the first at ``first_s``, the last at ``last_s``."""

    tokens: Sequence[Token]
    first_s: float
    last_s: float


class Network(Protocol):
    """Messages and KV between workers and with the gateway; what cannot arrive is lost."""

    def to_gateway(self, life: "Life", message: ToGateway) -> None:
        """A worker speaks of a request."""
        ...

    def tokens(self, life: "Life", spoken: Spoken, *, done: bool) -> None:
        """A worker drew tokens; ``done``: it has finished its part with them."""
        ...

    def to_sink(self, source: "Life", terms: GrantTerms, message: ToSink) -> None:
        """A source speaks to the sink of a handoff."""
        ...

    def to_source(self, sink: "Life", terms: GrantTerms, message: ToSource) -> None:
        """A sink speaks to the source of a handoff."""
        ...

    def hears(self, life: "Life", peer: WorkerId, epoch: str) -> bool:
        """Whether signs of life of a peer's incarnation arrive."""
        ...

    def pull(self, sink: "Life", terms: GrantTerms, num_bytes: float) -> float | None:
        """Begin to move bytes from a handoff's source; when the last one is here, or ``None`` if none will come."""
        ...


@dataclass(slots=True, eq=False)
class Life:
    """One incarnation of a worker.

    Attributes:
        alive: until it dies.
        way_out, way_in: its share of the network.
    """

    identity: WorkerIdentity
    engine: VirtualEngine
    hardware: Hardware
    schedule: Schedule
    network: Network
    handoff: HandoffConfig
    key: bytes
    way_out: Port
    way_in: Port
    alive: bool = True


def stay_alive(lease: Lease, now: float) -> None:
    """A heartbeat came shortly before the lease would have ended; past its cap it ends all the same."""
    if now < lease.cap:
        lease.deadline = min(now + lease.duration_s, lease.cap)
        lease.heard = now
