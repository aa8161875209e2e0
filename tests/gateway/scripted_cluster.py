"""Workers that say what a test tells them to, and a dispatcher over them."""

import asyncio
from collections.abc import AsyncIterator, Callable

from tests.fakes import MODEL, POOL, a_request
from twinfer.core.capabilities import Role, WorkerIdentity
from twinfer.core.config import Config, ModelConfig
from twinfer.core.errors import WorkerLost
from twinfer.core.grant import Grant
from twinfer.core.ids import Epoch, RequestId, WorkerId
from twinfer.core.load import BlockCounts, Counters, LoadReport
from twinfer.core.messages import (
    Cancel,
    Hello,
    Load,
    ToGateway,
    ToWorker,
)
from twinfer.core.tokens import FinishReason, Token
from twinfer.engine.assemble import emulated_capabilities
from twinfer.gateway.dispatch import FleetDispatcher, FleetGeneration
from twinfer.gateway.fleet import Fleet

LOAD = LoadReport(BlockCounts(8, 8, 0, 0), Counters(prefill_tokens=7))
LONG = a_request([1] * 100, 3)
CONFIG = Config(model=(ModelConfig(id=MODEL.id),))


class FakeWorker:
    """A worker at the other end of a stream."""

    def __init__(self, name: str, role: Role) -> None:
        capabilities = emulated_capabilities(MODEL, POOL)
        self.identity = WorkerIdentity(WorkerId(name), Epoch("e"), role, capabilities, f"unix:/{name}")
        self.heard: asyncio.Queue[ToWorker] = asyncio.Queue()
        self.down = self.is_over = False
        self._says: asyncio.Queue[ToGateway | None] = asyncio.Queue()

    def gateway_stream(self) -> "FakeWorker":
        self._says, self.is_over = asyncio.Queue(), False
        if self.down:
            self._says.put_nowait(None)
        else:
            self.say(Hello(self.identity), Load(LOAD))
        return self

    def send_soon(self, message: ToWorker) -> None:
        self.heard.put_nowait(message)

    async def __aiter__(self) -> AsyncIterator[ToGateway]:
        says = self._says
        while (message := await says.get()) is not None:
            yield message
        raise WorkerLost("the worker is gone")

    async def report(self, timeout_s: float) -> LoadReport:
        return LOAD

    async def close(self) -> None:
        """Nothing to let go of."""

    def say(self, *messages: ToGateway) -> None:
        for message in messages:
            self._says.put_nowait(message)

    def die(self) -> None:
        self.down = True
        self._says.put_nowait(None)

    async def hears(self, kind: type) -> RequestId:
        """The next message, which must be of this kind; its wire id."""
        message = await self.heard.get()
        assert isinstance(message, kind)
        return message.request_id if isinstance(message, Cancel) else message.request.request_id


class Cluster:
    """A prefill worker, two decode workers, and a dispatcher."""

    def __init__(self, config: Config) -> None:
        self.p, self.d0, self.d1 = (
            FakeWorker("p", Role.PREFILL),
            FakeWorker("d0", Role.DECODE),
            FakeWorker("d1", Role.DECODE),
        )
        workers = {worker.identity.worker: worker for worker in (self.p, self.d0, self.d1)}
        self.fleet = Fleet({name: name for name in workers}, lambda address: workers[WorkerId(address)])
        self.dispatcher = FleetDispatcher(self.fleet, config)

    async def until(self, condition: Callable[[], bool]) -> None:
        """Give the loop its turns until something holds."""
        while not condition():
            await asyncio.sleep(0)


def tokens(wire_id: RequestId, first: int, *token_ids: int, last: bool = False) -> tuple[Token, ...]:
    """Consecutive tokens; the last may end the answer."""
    made = [Token(wire_id, first + offset, token_id) for offset, token_id in enumerate(token_ids)]
    if last:
        made[-1] = Token(wire_id, made[-1].index, made[-1].token_id, finish=FinishReason.LENGTH)
    return tuple(made)


async def collect(generation: FleetGeneration) -> list[int]:
    """All token ids, up to the last one or the error."""
    news, found = asyncio.Event(), list[Token]()
    generation.arrivals.listen(news.set)
    while not found or found[-1].finish is None:
        await news.wait()
        news.clear()
        if not (taken := generation.arrivals.take()) and generation.arrivals.error is not None:
            raise generation.arrivals.error
        found += taken
    return [token.token_id for token in found]


GRANT = Grant(b"terms", b"signature")
