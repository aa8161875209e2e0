"""The response's side of one HTTP exchange: a whole response, or a stream that ends cleanly or visibly does not."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from starlette.datastructures import MutableHeaders
from starlette.responses import Response
from starlette.types import Message, Send

from twinfer.core.errors import TwinferError


@dataclass(slots=True)
class Wire:
    """What has been sent.

    Attributes:
        headers: go out with every response.
        failure: how the running stream words an error; ``None`` before a stream began.
        begun, taken: messages that were given to the server, and those of them that it took; it takes no more while the
            client reads nothing.
    """

    send: Send
    headers: Mapping[str, str]
    failure: Callable[[TwinferError], bytes] | None = None
    begun: int = 0
    taken: int = 0

    async def respond(self, response: Response) -> None:
        """Send a whole response."""
        response.headers.update(self.headers)
        await self._send(
            {"type": "http.response.start", "status": response.status_code, "headers": response.raw_headers}
        )
        await self._send({"type": "http.response.body", "body": response.body, "more_body": False})

    async def begin(self, headers: Mapping[str, str], failure: Callable[[TwinferError], bytes]) -> None:
        """Commit to status 200 and a stream. From here on an error can only break the stream."""
        self.failure = failure
        raw = MutableHeaders({**headers, **self.headers}).raw
        await self._send({"type": "http.response.start", "status": 200, "headers": raw})

    async def write(self, data: bytes) -> None:
        """Send a part of the stream; waits while the client takes no more."""
        if data:
            await self._send({"type": "http.response.body", "body": data, "more_body": True})

    async def finish(self) -> None:
        """End the stream cleanly.

        Without this call the server closes the connection in mid-body, which is how a client learns that its answer
        is not whole.
        """
        await self._send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _send(self, message: Message) -> None:
        self.begun += 1
        await self.send(message)
        self.taken += 1
