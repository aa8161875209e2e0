"""Asks a deployment what a workload says, when it says so, and notes when each answer's first and last tokens came.

One thread and one selector: what is read is looked at when all is over.
"""

import json
import selectors
import socket
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from bench.simulator_check.workload import Asked, prompt
from bench.streams import Stream

PATIENCE_S = 120.0
"""After the last request was sent."""


@dataclass(frozen=True, slots=True)
class Served:
    """One answer, as its client saw it; times in seconds since the first request.

    Attributes:
        prompt_tokens, tokens: as the server counts them.
    """

    at_s: float
    prompt_tokens: int
    tokens: int
    first_s: float
    last_s: float

    @property
    def ttft_s(self) -> float:
        """From asking to the first token."""
        return self.first_s - self.at_s

    @property
    def tpot_s(self) -> float:
        """For each token after the first."""
        return (self.last_s - self.first_s) / (self.tokens - 1)


def replay(url: str, model: str, workload: Sequence[Asked], seed: int, letter: int) -> list[Served]:
    """Ask everything, and wait for all answers.

    Args:
        letter: a token that has a text, of which all answers are made: of one without, nothing is seen.

    Raises:
        SystemExit: an answer was cut short or is no answer.
    """
    address = urlsplit(url)
    bodies = [_request(model, asked, prompt(asked, number, seed), letter) for number, asked in enumerate(workload)]
    begun, sent, streams = time.perf_counter(), list[float](), list[Stream]()
    end = begun + workload[-1].at_s + PATIENCE_S
    with selectors.DefaultSelector() as selector:
        open_streams = 0
        while len(sent) < len(bodies) or open_streams:
            now = time.perf_counter()
            if now > end:
                raise SystemExit(f"{open_streams} answers did not come within {PATIENCE_S:g} s")
            if len(sent) < len(bodies) and now >= begun + workload[len(sent)].at_s:
                sock = socket.create_connection((address.hostname, address.port))
                sent.append(time.perf_counter())
                sock.sendall(bodies[len(sent) - 1])
                sock.setblocking(False)
                streams.append(Stream(sock))
                selector.register(sock, selectors.EVENT_READ, streams[-1])
                open_streams += 1
                continue
            due = begun + workload[len(sent)].at_s if len(sent) < len(bodies) else end
            open_streams -= _read(selector, max(0.0, due - now))
    return [_served(at - begun, begun, stream) for at, stream in zip(sent, streams, strict=True)]


def _read(selector: selectors.BaseSelector, within_s: float) -> int:
    """Take in what has come; how many streams have ended."""
    ended = 0
    for key, _ in selector.select(within_s):
        stream: Stream = key.data
        if data := stream.sock.recv(1 << 16):
            stream.parts.append((time.perf_counter(), data))
        else:
            selector.unregister(stream.sock)
            stream.sock.close()
            ended += 1
    return ended


def _request(model: str, asked: Asked, text: str, letter: int) -> bytes:
    body = {
        "model": model,
        "messages": [{"role": "user", "content": text}],
        "max_tokens": asked.tokens,
        "temperature": 0,
        "stream": True,
        "stream_options": {"include_usage": True},
        "ignore_eos": True,
        "logit_bias": {str(letter): 100},
    }
    data = json.dumps(body).encode()
    head = (
        "POST /v1/chat/completions HTTP/1.1\r\nhost: bench\r\ncontent-type: application/json\r\n"
        f"content-length: {len(data)}\r\nconnection: close\r\n\r\n"
    )
    return head.encode() + data


def _served(at_s: float, begun: float, stream: Stream) -> Served:
    times, usage = [], None
    for when, chunk in _chunks(stream.parts):
        usage = chunk.get("usage") or usage
        if any(choice["delta"].get("content") for choice in chunk["choices"]):
            times.append(when - begun)
    if usage is None or not times:
        raise SystemExit(f"no whole answer: {b''.join(data for _, data in stream.parts)[:500]!r}")
    return Served(at_s, usage["prompt_tokens"], usage["completion_tokens"], times[0], times[-1])


def _chunks(parts: Sequence[tuple[float, bytes]]) -> Iterator[tuple[float, dict]]:  # type: ignore[type-arg]
    """Every event of a stream with the time at which it was whole."""
    rest = b""
    for when, data in parts:
        rest += data
        while (end := rest.find(b"\n\n")) >= 0:
            event, rest = rest[: end + 2], rest[end + 2 :]
            if (start := event.find(b"data: {")) >= 0:
                yield when, json.loads(event[start + 6 :])
