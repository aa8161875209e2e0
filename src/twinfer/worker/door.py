"""Callers may arrive as soon as the address is known, which is before the service exists: they wait at the door."""

import asyncio

from twinfer.core.load import LoadReport
from twinfer.core.messages import ToGateway, ToSink, ToSource, ToWorker
from twinfer.rpc.stream import MessageStream
from twinfer.worker.service import WorkerService


class Door:
    """Hands callers to the service once it is there."""

    def __init__(self) -> None:
        self._service: asyncio.Future[WorkerService] = asyncio.get_running_loop().create_future()

    def open(self, service: WorkerService) -> None:
        """Let everybody in."""
        self._service.set_result(service)

    async def on_gateway(self, stream: MessageStream[ToWorker, ToGateway]) -> None:
        """Serve one gateway until it leaves."""
        await (await asyncio.shield(self._service)).on_gateway(stream)

    async def on_handoff(self, stream: MessageStream[ToSink, ToSource]) -> None:
        """Serve one source worker until it leaves."""
        await (await asyncio.shield(self._service)).on_handoff(stream)

    async def report(self) -> LoadReport:
        """The state of now."""
        return await (await asyncio.shield(self._service)).report()
