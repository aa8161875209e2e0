"""Servers to measure: real sockets, with known delays, or with something wrong."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field

import msgspec

Answer = Callable[["Exchange"], Awaitable[None]]
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"


@dataclass
class Exchange:
    """One request as a server sees it.

    Attributes:
        number: of this server's requests, from 0.
    """

    number: int
    head: bytes
    body: bytes
    writer: asyncio.StreamWriter
    came_s: float
    wrote_s: list[float] = field(default_factory=list)

    def chunk(self, data: bytes) -> None:
        """Send a part of a chunked body; nothing ends it."""
        self.writer.write(b"%x\r\n%s\r\n" % (len(data), data))

    def event(self, payload: object) -> None:
        """Send one server-sent event and note when."""
        self.chunk(b"data: " + (payload if isinstance(payload, bytes) else msgspec.json.encode(payload)) + b"\n\n")
        self.wrote_s.append(time.monotonic())


@dataclass
class Served:
    """A server that listens, and all it was asked."""

    url: str
    exchanges: list[Exchange] = field(default_factory=list)


def piece(text: str, finish: str | None = None) -> dict[str, object]:
    """A chat completion's chunk."""
    return {"choices": [{"index": 0, "delta": {"content": text}, "finish_reason": finish}]}


def usage(prompt: int, completion: int) -> dict[str, object]:
    """The last chunk."""
    return {
        "choices": [],
        "usage": {"prompt_tokens": prompt, "completion_tokens": completion},
        "twinfer": {"route": "disaggregated"},
    }


def paced(first_s: Callable[[int], float], gap_s: Callable[[int], float], tokens: int) -> Answer:
    """Answers whose delays are functions of the request's number; words of the prompt count as tokens."""

    async def answer(exchange: Exchange) -> None:
        exchange.writer.write(HEAD)
        await asyncio.sleep(first_s(exchange.number))
        for index in range(tokens):
            if index:
                await asyncio.sleep(gap_s(exchange.number))
            exchange.event(piece("word ", "length" if index == tokens - 1 else None))
        words = msgspec.json.decode(exchange.body)["messages"][-1]["content"].split()
        exchange.event(usage(len(words) + 7, tokens))
        exchange.chunk(b"data: [DONE]\n\n")
        exchange.writer.write(b"0\r\n\r\n")

    return answer


def status(code: int, body: bytes) -> Answer:
    """The same short answer to everybody."""

    async def answer(exchange: Exchange) -> None:
        exchange.writer.write(b"HTTP/1.1 %d X\r\ncontent-length: %d\r\n\r\n%s" % (code, len(body), body))

    return answer


@contextlib.asynccontextmanager
async def serving(answer: Answer) -> AsyncIterator[Served]:
    """A server on a free port, in this event loop."""
    served = Served("")
    tasks: set[asyncio.Task[None]] = set()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                came_s = time.monotonic()
                length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
                exchange = Exchange(len(served.exchanges), head, await reader.readexactly(length), writer, came_s)
                served.exchanges.append(exchange)
                await answer(exchange)
                if writer.is_closing():
                    break
        writer.close()
        tasks.discard(task)

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    served.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield served
    finally:
        server.close()
        for task in list(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
