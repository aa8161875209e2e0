"""What the parts of a worker share: who it is, its engine, its KV memory, its clock and its transfer thread."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from twinfer.core.capabilities import WorkerIdentity
from twinfer.core.clock import Clock
from twinfer.core.config import HandoffConfig
from twinfer.core.ids import RequestId
from twinfer.core.messages import ToGateway
from twinfer.core.tally import Tally
from twinfer.engine.base import Engine
from twinfer.kv.memory import PoolMemory
from twinfer.worker.isolation import Isolation


class Outbox(Protocol):
    """Where messages about requests go: to the gateway that asked, if it is still there."""

    def tell(self, request_id: RequestId, message: ToGateway) -> None:
        """Send soon; from the event loop only."""
        ...


class Run(Protocol):
    """Runs a call somewhere else, later, in order; from any thread."""

    def __call__(self, call: Callable[..., None], *args: object) -> None:
        """Return at once."""
        ...


class RunInTurn(Protocol):
    """Runs a call somewhere else, later, before those of worse ranks (``core.turns``); from any thread."""

    def __call__(self, rank: int, call: Callable[..., None], *args: object) -> None:
        """Return at once."""
        ...


@dataclass(slots=True)
class WorkerContext:
    """Shared by the service, the source's desk and the sink's desk.

    Attributes:
        identity: who it is now; :class:`~twinfer.worker.turning.Turning` alone writes it, when nothing is under way.
        accept: provenances of KV taken besides the worker's own; ``*`` takes any.
        transfer: runs on the transfer thread, by service tiers; copying and hashing release the GIL there.
        soon: runs on the event loop.
        wake: tells the engine's thread that there may be work.
        isolation: whether other workers are out of reach on purpose.
        refused: peers turned away, as each of its ports counts them.
    """

    identity: WorkerIdentity
    cluster_key: bytes
    engine: Engine
    memory: PoolMemory
    clock: Clock
    handoff: HandoffConfig
    accept: tuple[str, ...]
    transfer: RunInTurn
    soon: Run
    wake: Callable[[], None]
    isolation: Isolation = field(default_factory=Isolation)
    refused: tuple[Tally, ...] = ()
