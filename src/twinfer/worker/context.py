"""What the parts of a worker share: who it is, its engine, its KV memory, its clock and its transfer thread."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol

from twinfer.core.capabilities import WorkerIdentity
from twinfer.core.clock import Clock
from twinfer.core.config import HandoffConfig
from twinfer.core.ids import RequestId
from twinfer.core.messages import ToGateway
from twinfer.engine.base import Engine
from twinfer.kv.memory import PoolMemory


class Outbox(Protocol):
    """Where messages about requests go: to the gateway that asked, if it is still there."""

    def tell(self, request_id: RequestId, message: ToGateway) -> None:
        """Send soon; from the event loop only."""
        ...


@dataclass(frozen=True, slots=True)
class WorkerContext:
    """Shared by the service, the source's desk and the sink's desk.

    Attributes:
        accept: provenances of KV taken besides the worker's own; ``*`` takes any.
        transfers: one thread for copying and hashing, which release the GIL.
        loop: the control thread's event loop.
        wake: tells the engine's thread that there may be work.
    """

    identity: WorkerIdentity
    cluster_key: bytes
    engine: Engine
    memory: PoolMemory
    clock: Clock
    handoff: HandoffConfig
    accept: tuple[str, ...]
    transfers: ThreadPoolExecutor
    loop: asyncio.AbstractEventLoop
    wake: Callable[[], None]

    def soon(self, call: Callable[..., None], *args: object) -> None:
        """Run on the event loop; from any thread. Once the loop has closed there is nobody left to tell."""
        if not self.loop.is_closed():
            self.loop.call_soon_threadsafe(call, *args)
