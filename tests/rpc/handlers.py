"""Handlers that tests serve with."""

from twinfer.core.errors import CapacityError
from twinfer.core.ids import RequestId
from twinfer.core.load import BlockCounts, Counters, LoadReport
from twinfer.core.messages import (
    Busy,
    Cancel,
    Gone,
    Heartbeat,
    Refused,
    ToGateway,
    ToSink,
    ToSource,
    ToWorker,
    Withdraw,
)
from twinfer.rpc.stream import MessageStream

KEY = b"a cluster key"
REPORT = LoadReport(BlockCounts(8, 8, 0, 0), Counters(steps=3), handoffs={"offered": 2})


class EchoHandler:
    """Answers each message with one that names it; notes how its streams end."""

    def __init__(self) -> None:
        self.endings: list[str] = []

    async def on_gateway(self, stream: MessageStream[ToWorker, ToGateway]) -> None:
        """Busy with whatever is cancelled; some ids do more."""
        try:
            async for message in stream:
                assert isinstance(message, Cancel)
                if message.request_id == "fail":
                    raise CapacityError("no more of this")
                if message.request_id == "break":
                    raise ZeroDivisionError
                if message.request_id == "leave":
                    await stream.send(Refused(message.request_id, "bye"))
                    return
                stream.send_soon(Busy(message.request_id, 1.0))
        finally:
            self.endings.append(str(stream.error))

    async def on_handoff(self, stream: MessageStream[ToSink, ToSource]) -> None:
        """Gone is whatever is withdrawn; a heartbeat comes back."""
        async for message in stream:
            if isinstance(message, Withdraw):
                await stream.send(Gone(message.handoff, message.attempt, message.reason))
            elif isinstance(message, Heartbeat):
                await stream.send(message)

    async def report(self) -> LoadReport:
        """Always the same."""
        return REPORT


def cancel(name: str) -> Cancel:
    """A message for ``on_gateway``."""
    return Cancel(RequestId(name))


def busy(name: str) -> Busy:
    """Its answer."""
    return Busy(RequestId(name), 1.0)
