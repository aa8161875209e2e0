"""A load generator that costs little: raw sockets, requests made beforehand, answers counted rather than parsed."""

import asyncio
import json
import struct
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

LETTER = b"x"
"""Every token's text."""
BODY_END = b"\r\n\r\n"
HOST = "bench"


@dataclass
class Tally:
    """What came back.

    Attributes:
        latencies: of whole answers, in seconds.
        events: number of events by tokens in them.
    """

    answers: int = 0
    tokens: int = 0
    latencies: list[float] = field(default_factory=list)
    events: Counter[int] = field(default_factory=Counter)

    def median_tokens_per_event(self) -> int:
        """Half of the events hold no more."""
        left = sum(self.events.values()) / 2
        for tokens in sorted(self.events):
            left -= self.events[tokens]
            if left <= 0:
                return tokens
        return 0


def converse_request(
    model: str, operation: str, max_tokens: int, prove: Callable[[str, bytes], Mapping[str, str]] | None = None
) -> bytes:
    """A request as it goes over the wire; ``prove`` gives the headers that say who asks, from path and body."""
    body = json.dumps(
        {
            "messages": [{"role": "user", "content": [{"text": "Tell me about the sea."}]}],
            "inferenceConfig": {"maxTokens": max_tokens, "temperature": 0},
            "additionalModelRequestFields": {"ignore_eos": True},
        }
    ).encode()
    path = f"/model/{model.replace(':', '%3A')}/{operation}"
    headers = {"Host": HOST, "Content-Type": "application/json", "Content-Length": str(len(body))}
    headers |= prove(path, body) if prove else {}
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return f"POST {path} HTTP/1.1\r\n{lines}\r\n".encode() + body


@dataclass(frozen=True, slots=True)
class Times:
    """When one connection asks: first after a while, then every so often if it can, until a moment of the clock."""

    until: float
    first_s: float = 0.0
    every_s: float = 0.0


async def ask(address: tuple[str, int], request: bytes, times: Times, tally: Tally) -> None:
    """One keep-alive connection: ask, wait for the whole answer, and pause until the next is due."""
    reader, writer = await asyncio.open_connection(*address)
    due = time.perf_counter() + times.first_s
    await asyncio.sleep(times.first_s)
    while (started := time.perf_counter()) < times.until:
        writer.write(request)
        head = await reader.readuntil(BODY_END)
        if not head.startswith(b"HTTP/1.1 200"):
            raise RuntimeError(head.decode())
        length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
        await reader.readexactly(length)
        tally.latencies.append(time.perf_counter() - started)
        tally.answers += 1
        due += times.every_s
        if (wait := due - time.perf_counter()) > 0:
            await asyncio.sleep(wait)
    writer.close()


class StreamCounter(asyncio.Protocol):
    """Reads event streams from one connection, counting events and the tokens in each, and asks again at each end."""

    def __init__(self, request: bytes, until: float, tally: Tally) -> None:
        self._request, self._until, self._tally = request, until, tally
        self._raw = bytearray()
        self._frames = bytearray()
        self._in_body = False
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ask."""
        self._transport: asyncio.WriteTransport = transport  # type: ignore[assignment]
        self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        """Undo the chunked encoding."""
        self._raw += data
        if not self._in_body:
            end = self._raw.find(BODY_END)
            if end < 0:
                return
            if not self._raw.startswith(b"HTTP/1.1 200"):
                self.done.set_exception(RuntimeError(bytes(self._raw).decode(errors="replace")))
                return
            del self._raw[: end + 4]
            self._in_body = True
        raw, position = self._raw, 0
        while (line := raw.find(b"\r\n", position)) >= 0:
            size = int(raw[position:line], 16)
            if len(raw) < line + 4 + size:
                break
            self._frames += raw[line + 2 : line + 2 + size]
            position = line + 4 + size
            if size == 0:
                self._ended()
                break
        del raw[:position]
        self._count()

    def connection_lost(self, exc: Exception | None) -> None:
        """The server may not end before we do."""
        if not self.done.done():
            self.done.set_exception(exc or RuntimeError("the server closed the connection"))

    def _count(self) -> None:
        frames, position, tally = self._frames, 0, self._tally
        while len(frames) - position >= 8:
            total, head = struct.unpack_from(">II", frames, position)
            if len(frames) - position < total:
                break
            if frames.find(b"contentBlockDelta", position, position + 12 + head) > 0:
                start = frames.find(b'"text":"', position + 12 + head, position + total)
                tokens = frames.count(LETTER, start + 7, position + total - 4)
                if tokens:
                    tally.events[tokens] += 1
                    tally.tokens += tokens
            position += total
        del frames[:position]

    def _ended(self) -> None:
        self._in_body = False
        self._tally.answers += 1
        if time.perf_counter() < self._until:
            self._transport.write(self._request)
        elif not self.done.done():
            self.done.set_result(None)
            self._transport.close()
