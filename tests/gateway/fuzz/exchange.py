"""One exchange with an ASGI application, without a socket: the client may send in parts, break off, or leave."""

import asyncio
import time
from dataclasses import dataclass, field
from random import Random

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message


@dataclass(frozen=True, slots=True)
class Sent:
    """A request as its bytes say it.

    Attributes:
        whole: whether the body comes to its end before the client leaves.
        patience: messages after which the client leaves; ``None`` for one that stays.
    """

    method: str
    path: str
    headers: list[tuple[bytes, bytes]]
    body: bytes
    whole: bool = True
    patience: int | None = None


@dataclass(slots=True)
class Received:
    """What came back.

    Attributes:
        ended: whether it ended as a whole response does.
        took_s: how long the application was at it.
    """

    took_s: float = 0.0
    status: int = 0
    headers: Headers = field(default_factory=Headers)
    body: bytes = b""
    ended: bool = False


class Exchange:
    """Both ends of one connection."""

    def __init__(self, random: Random, sent: Sent) -> None:
        self._sent = sent
        self._pending = _parts(random, sent)
        self._left = asyncio.Event()
        self._messages = 0
        self.received = Received()

    async def run(self, app: ASGIApp) -> None:
        """Until the application is done with it."""
        path, _, query = self._sent.path.partition("?")
        scope = {
            "type": "http",
            "http_version": "1.1",
            "method": self._sent.method,
            "path": path,
            "raw_path": path.encode(),
            "query_string": query.encode(),
            "headers": self._sent.headers,
            "scheme": "http",
        }
        began = time.perf_counter()
        await app(scope, self._receive, self._send)
        self.received.took_s = time.perf_counter() - began

    async def _receive(self) -> Message:
        if self._pending:
            return self._pending.pop(0)
        await self._left.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Message) -> None:
        received = self.received
        assert not received.ended, "more after the end"
        if message["type"] == "http.response.start":
            assert not received.status, "a second status"
            received.status, received.headers = message["status"], Headers(raw=message["headers"])
        else:
            assert received.status, "a body without a status"
            received.body += message["body"]
            received.ended = not message["more_body"]
        self._messages += 1
        if self._messages == self._sent.patience:
            self._left.set()
        await asyncio.sleep(0)


def _parts(random: Random, sent: Sent) -> list[Message]:
    body, parts = sent.body, []
    cuts = sorted(random.randint(0, len(body)) for _ in range(random.choice((0, 0, 1, 4))))
    for start, end in zip([0, *cuts], [*cuts, len(body)], strict=True):
        parts.append({"type": "http.request", "body": body[start:end], "more_body": True})
    if not sent.whole:
        return [*parts, {"type": "http.disconnect"}]
    parts[-1]["more_body"] = False
    return parts
